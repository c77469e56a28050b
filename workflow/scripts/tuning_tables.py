"""The tables of a tuning: tuning_tables.py --config FILE --name TUNING --results FOLDER."""

import sys
from pathlib import Path

from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan
from memgap.tuning.results import write_tables


def main(arguments: list[str] | None = None) -> int:
    """Write the tables below RESULTS/tuning/TUNING; returns the exit status."""
    parser = script_parser("Make the tables of a tuning.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    return run_script(lambda: write_tables(requested_plan(options, "tuning"), options.results))


if __name__ == "__main__":
    sys.exit(main())
