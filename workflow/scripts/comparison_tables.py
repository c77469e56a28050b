"""Tables of a comparison of engines: comparison_tables.py --plan PLAN.json --points FOLDER --out PREFIX."""

import sys
from pathlib import Path

from memgap.kinds.static.engines import engines_table
from memgap.kinds.static.kv import kv_table
from memgap.kinds.static.memory import memory_table
from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan

TABLES = {"engines": engines_table, "kv": kv_table, "memory": memory_table}


def main(arguments: list[str] | None = None) -> int:
    """Write PREFIX.engines.csv, PREFIX.kv.csv and PREFIX.memory.csv; returns the exit status."""
    parser = script_parser("Make the tables of a comparison of engines.")
    parser.add_argument("--points", type=Path, required=True, help="folder of stored points")
    parser.add_argument("--out", type=Path, required=True, help="the files' names without their endings")
    options = parser.parse_args(arguments)

    def tables() -> None:
        plan = requested_plan(options, "group")
        for kind, make in TABLES.items():
            text = make(plan, options.points).to_csv(index=False, lineterminator="\n", float_format="%.9g")
            write_text(options.out.with_name(f"{options.out.name}.{kind}.csv"), text)

    return run_script(tables)


if __name__ == "__main__":
    sys.exit(main())
