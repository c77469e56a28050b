"""`python -m memgap.recorded`: record a study's measurements, compare new ones with recorded ones."""

import argparse
import sys
from pathlib import Path

from memgap.errors import UserError
from memgap.recorded.export import export


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m memgap.recorded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("export", help="add the points of a results folder to a recorded study")
    recording.add_argument("--results", type=Path, default=Path("results"))
    recording.add_argument("--recorded", type=Path, required=True, help="folder of the study, such as recorded/h200")
    options = parser.parse_args(argv)
    try:
        print(f"{export(options.results, options.recorded)} points recorded in {options.recorded}")
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
