"""Fetch a model of the hub for jobs without a network: stage_model.py --plan MODEL.json --results FOLDER --out FILE."""

import sys
from pathlib import Path

from memgap.models.staging import stage_model
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Fetch it; the plan is the "model" part of a point record. Returns the exit status."""
    parser = script_parser("Fetch a model of the hub.")
    parser.add_argument("--results", type=Path, required=True, help="folder with the results")
    parser.add_argument("--out", type=Path, required=True, help="file that says that it is staged")
    options = parser.parse_args(arguments)
    return run_script(lambda: stage_model(requested_plan(options, "hub_model"), options.results, options.out))


if __name__ == "__main__":
    sys.exit(main())
