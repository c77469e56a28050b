"""Write a model folder without real weights: write_model.py --plan MODEL.json --out FOLDER."""

import sys
from pathlib import Path

from memgap.errors import UserError
from memgap.models import write_synthetic_model
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; the plan is the "model" part of a point record. Returns the exit status."""
    parser = script_parser("Write the folder of a model with synthetic weights.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)

    def write() -> None:
        model = requested_plan(options, "model")
        if not {"name", "weights", "dtype", "architecture"} <= model.keys():
            raise UserError('the plan of a model has to be the "model" part of a point record.')
        write_synthetic_model(model, options.out)

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
