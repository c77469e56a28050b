"""Collect a sweep's points into a table: collect.py --plan SWEEP.json --points FOLDER --parquet FILE --csv FILE."""

import sys
from pathlib import Path

from memgap.collect.table import collect, write_table
from memgap.plans import requested_plan
from memgap.script import run_script, script_parser


def main(arguments: list[str] | None = None) -> int:
    """Write the table in both forms; returns the exit status."""
    parser = script_parser("Collect a sweep's points into a tidy table.")
    parser.add_argument("--points", type=Path, required=True, help="folder of stored points")
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args(arguments)
    return run_script(
        lambda: write_table(collect(requested_plan(options, "sweep"), options.points), options.parquet, options.csv)
    )


if __name__ == "__main__":
    sys.exit(main())
