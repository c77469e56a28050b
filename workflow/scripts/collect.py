"""Collect a sweep's points: collect.py --plan SWEEP.json --points FOLDER --parquet FILE --csv FILE --html FILE."""

import sys
from pathlib import Path

from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan
from memgap.tables.pages import table_page
from memgap.tables.points import collect, write_table


def main(arguments: list[str] | None = None) -> int:
    """Write the table in all forms; returns the exit status."""
    parser = script_parser("Collect a sweep's points into a tidy table.")
    parser.add_argument("--points", type=Path, required=True, help="folder of stored points")
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--html", type=Path, required=True)
    options = parser.parse_args(arguments)

    def tables() -> None:
        table = collect(requested_plan(options, "group"), options.points)
        write_table(table, options.parquet, options.csv)
        write_text(options.html, table_page(table))

    return run_script(tables)


if __name__ == "__main__":
    sys.exit(main())
