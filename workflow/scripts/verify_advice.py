"""Start the advised server and measure it: verify_advice.py --plan PLAN.json --advice FILE --out FILE --html FILE."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from memgap.advisor.verify import verification, verification_plan
from memgap.session.run import run_sessions
from memgap.store.atomic import write_text
from memgap.store.results import Results
from memgap.study.plan import add_plan_arguments, requested_plan
from memgap.tables.documents import read_advice
from memgap.tables.pages import verification_page


def main(arguments: list[str] | None = None) -> int:
    """Measure the advised configuration and write predicted against measured; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure an advised configuration.")
    add_plan_arguments(parser)
    parser.add_argument("--advice", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--html", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args(arguments)

    def verify(measure: Callable[[Mapping[str, Any]], None]) -> None:
        plan = requested_plan(options, "verification")
        (advice,) = read_advice([options.advice]).values()
        session = verification_plan(plan, advice)
        point = None
        if session is not None:
            measure(session)
            point = Results(options.results).store.read(session["points"][0]["key"])
        found = verification(advice, point)
        write_text(options.out, yaml.safe_dump(found, sort_keys=False, width=110))
        write_text(options.html, verification_page(found))

    return run_sessions(verify, options.results, options.log)


if __name__ == "__main__":
    sys.exit(main())
