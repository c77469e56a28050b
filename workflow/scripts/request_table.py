"""A table from what single points keep: request_table.py KIND --plan PLAN.json --points FOLDER --csv FILE."""

import sys
from pathlib import Path

from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan
from memgap.tables.goodput import goodput_table
from memgap.tables.kernels import kernels_table
from memgap.tables.over_time import series_table

TABLES = {"goodput": goodput_table, "kernels": kernels_table, "series": series_table}


def main(arguments: list[str] | None = None) -> int:
    """Write the table as CSV; returns the exit status."""
    parser = script_parser("Make a table from the requests or kernels of a sweep's points.")
    parser.add_argument("kind", choices=sorted(TABLES))
    parser.add_argument("--points", type=Path, required=True, help="folder of stored points")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args(arguments)

    def table() -> None:
        found = TABLES[options.kind](
            requested_plan(options, "goodput" if options.kind == "goodput" else "group"), options.points
        )
        write_text(options.csv, found.to_csv(index=False, lineterminator="\n", float_format="%.9g"))

    return run_script(table)


if __name__ == "__main__":
    sys.exit(main())
