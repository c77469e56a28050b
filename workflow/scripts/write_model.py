"""Write the folder of a model that is made here: write_model.py --plan MODEL.json --out FOLDER."""

import sys
from pathlib import Path

from memgap.engine.identity import engine_python
from memgap.errors import UserError
from memgap.models.writing import write_model
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; the plan is the "model" part of a point record. Returns the exit status."""
    parser = script_parser("Write the folder of a model with synthetic or random weights, or from a package.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)

    def write() -> None:
        model = requested_plan(options, "model")
        if not {"name", "weights", "dtype", "architecture"} <= model.keys():
            raise UserError('the plan of a model has to be the "model" part of a point record.')
        write_model(model, options.out, engine_python("auto"))

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
