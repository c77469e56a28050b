"""Take all sessions from recorded data: restore_sessions.py --config FILE --results FOLDER --log FILE."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memgap.script import script_parser
from memgap.session.run import run_sessions
from memgap.study.plan import requested_study


def main(arguments: list[str] | None = None) -> int:
    """Restore the points of every session, one after another; returns the exit status."""
    parser = script_parser("Take all sessions from recorded data.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--log", type=Path)
    options = parser.parse_args(arguments)

    def restore(measure: Callable[[Mapping[str, Any]], None]) -> None:
        study = requested_study(options)
        for session in study.sessions:
            measure(study.session_plan(session))

    return run_sessions(restore, options.results, options.log)


if __name__ == "__main__":
    sys.exit(main())
