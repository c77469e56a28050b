"""Build one dataset and store it: make_dataset.py --plan DATASET.json --out results/datasets/KEY.npz."""

import sys
from pathlib import Path

from memgap.datasets import store_dataset
from memgap.datasets.spec import spec_fits_key
from memgap.errors import UserError
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Build and store the dataset; the plan is the "dataset" part of a point record. Returns the exit status."""
    parser = script_parser("Build a dataset and store it with its description.")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write; its description goes beside it")
    options = parser.parse_args(arguments)

    def build() -> None:
        spec = requested_plan(options, "dataset")
        if not spec_fits_key(spec):
            raise UserError('the plan of a dataset has to be the "dataset" part of a point record, key included.')
        store_dataset(options.out, spec)

    return run_script(build)


if __name__ == "__main__":
    sys.exit(main())
