"""Write a model folder without real weights: write_model.py --spec MODEL.json --out FOLDER."""

import argparse
import json
import sys
from pathlib import Path

from memgap.errors import UserError
from memgap.models import write_synthetic_model


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; the spec is the "model" part of a point record. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the folder of a model with synthetic weights.")
    parser.add_argument(
        "--spec", type=Path, required=True, help='JSON file with the "model" part of a point record'
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        write_synthetic_model(_read_spec(options.spec), options.out)
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


def _read_spec(path: Path) -> dict[str, object]:
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the model spec {path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"the model spec {path} is no valid JSON") from None
    if not isinstance(spec, dict) or not {"name", "weights", "dtype", "architecture"} <= spec.keys():
        raise UserError(f'the model spec {path} must be the "model" part of a point record')
    return spec


if __name__ == "__main__":
    sys.exit(main())
