"""Build one dataset and store it: make_dataset.py --spec DATASET.json --out results/datasets/KEY.npz."""

import argparse
import json
import sys
from pathlib import Path

from memgap.datasets import build_dataset, save_dataset, source_files
from memgap.datasets.spec import spec_fits_key
from memgap.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Build and store the dataset; the spec is the "dataset" part of a point record. Returns the status."""
    parser = argparse.ArgumentParser(description="Build a dataset and store it with its description.")
    parser.add_argument(
        "--spec", type=Path, required=True, help='JSON file with the "dataset" part of a point record'
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the .npz to write; its description goes beside it"
    )
    options = parser.parse_args(arguments)
    try:
        spec = _read_spec(options.spec)
        prompts = build_dataset(spec)
        save_dataset(options.out, spec, prompts, source_files(spec))
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


def _read_spec(path: Path) -> dict[str, object]:
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the dataset spec {path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"the dataset spec {path} is no valid JSON") from None
    if not isinstance(spec, dict) or not spec_fits_key(spec):
        raise UserError(f'the dataset spec {path} must be the "dataset" part of a point record, key included')
    return spec


if __name__ == "__main__":
    sys.exit(main())
