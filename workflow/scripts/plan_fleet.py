"""Plan a fleet: plan_fleet.py --plan FLEET.json --table TABLE... --out FILE --csv FILE."""

import sys
from pathlib import Path

from memgap.planner.__main__ import write_files
from memgap.planner.fleet import fleet_of
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write the plan as YAML and its placement as CSV; returns the exit status."""
    parser = script_parser("Plan which models run where in a fleet.")
    parser.add_argument("--table", type=Path, nargs="+", required=True, help="tables of the fleet's sweeps")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args(arguments)

    def plan() -> None:
        settings = {name: value for name, value in requested_plan(options, "fleet").items() if name != "sweeps"}
        write_files(
            fleet_of(settings, f"config: fleets.{options.name or options.plan}"),
            options.table,
            options.out,
            options.csv,
        )

    return run_script(plan)


if __name__ == "__main__":
    sys.exit(main())
