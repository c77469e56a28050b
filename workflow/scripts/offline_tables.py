"""The tables of an offline study: offline_tables.py --config FILE --name STUDY --points FOLDER --out PREFIX."""

import sys
from pathlib import Path

from memgap.kinds.offline.tables import offline_tables
from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write PREFIX.<kind>.csv for each kind of table; returns the exit status."""
    parser = script_parser("Make the tables of an offline study.")
    parser.add_argument("--points", type=Path, required=True, help="folder of the store")
    parser.add_argument("--out", required=True, help="path of the tables without their endings")
    options = parser.parse_args(arguments)

    def write() -> None:
        tables = offline_tables(requested_plan(options, "group"), options.points)
        for kind, table in tables.items():
            write_text(Path(f"{options.out}.{kind}.csv"), table.to_csv(index=False, lineterminator="\n"))

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
