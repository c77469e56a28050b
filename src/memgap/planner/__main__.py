"""Plan a fleet: python -m memgap.planner --table TABLE... --fleet FLEET.yaml --out PLAN.yaml [--csv PLAN.csv]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from memgap.planner.fleet import Fleet, read_fleet
from memgap.planner.report import placement_table, plan_for, write_plan
from memgap.script import run_script
from memgap.store.atomic import write_text
from memgap.tables.points import read_table


def read_tables(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of several tables of points as one; raises UserError for what is no table."""
    return pd.concat([read_table(path) for path in paths], ignore_index=True)


def write_files(fleet: Fleet, tables: Sequence[Path], out: Path, csv: Path | None) -> str:
    """Plan the fleet, write the plan as YAML and its placement as CSV; returns the plan's sentence."""
    plan = plan_for(read_tables(tables), fleet)
    write_text(out, write_plan(plan))
    if csv is not None:
        write_text(csv, placement_table(plan).to_csv(index=False, lineterminator="\n", float_format="%.9g"))
    return str(plan["sentence"])


def main(arguments: list[str] | None = None) -> int:
    """Plan and print the plan's sentence; returns the exit status, 2 where the user has to mend something."""
    parser = argparse.ArgumentParser(prog="memgap.planner", description="Plan which models run where in a fleet.")
    parser.add_argument("--table", type=Path, nargs="+", required=True, help="tables of the models' sweeps")
    parser.add_argument("--fleet", type=Path, required=True, help="the fleet as YAML")
    parser.add_argument("--out", type=Path, required=True, help="the plan as YAML")
    parser.add_argument("--csv", type=Path, help="the placement as a table")
    options = parser.parse_args(arguments)
    return run_script(lambda: print(write_files(read_fleet(options.fleet), options.table, options.out, options.csv)))


if __name__ == "__main__":
    sys.exit(main())
