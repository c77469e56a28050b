"""The tables of a load test: loadtest_tables.py --config FILE --name LOADTEST --points FOLDER --out PREFIX."""

import sys
from pathlib import Path

from memgap.kinds.locust.comparison import comparison_table, definitions_table
from memgap.kinds.locust.page import comparison_page
from memgap.kinds.locust.tables import points_table, timeline_table
from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write PREFIX.<kind>.csv for each kind of table, and PREFIX.comparison.html; returns the exit status."""
    parser = script_parser("Make the tables of a load test.")
    parser.add_argument("--points", type=Path, required=True, help="folder of the store")
    parser.add_argument("--out", required=True, help="path of the tables without their endings")
    options = parser.parse_args(arguments)

    def write() -> None:
        plan = requested_plan(options, "group")
        points = points_table(plan, options.points)
        tables = {
            "loadtest": points,
            "timeline": timeline_table(plan, options.points),
            "comparison": comparison_table(points),
            "definitions": definitions_table(plan, options.points),
        }
        for kind, table in tables.items():
            write_text(Path(f"{options.out}.{kind}.csv"), table.to_csv(index=False, lineterminator="\n"))
        page = comparison_page(plan["sweep"], points, tables["comparison"], tables["definitions"])
        write_text(Path(f"{options.out}.comparison.html"), page)

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
