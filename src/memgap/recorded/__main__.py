"""`python -m memgap.recorded`: record a study's measurements, compare new ones with recorded ones."""

import argparse
import sys
from pathlib import Path

from memgap.errors import UserError
from memgap.recorded.compare import comparison
from memgap.recorded.export import export


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m memgap.recorded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("export", help="add the points of a results folder to a recorded study")
    recording.add_argument("--results", type=Path, default=Path("results"))
    recording.add_argument("--recorded", type=Path, required=True, help="folder of the study, such as recorded/h200")
    recording.add_argument(
        "--requests", action="store_true", help="with single requests and the memory at the start, as comparisons need"
    )
    comparing = commands.add_parser("compare", help="compare the points of a results folder with recorded ones")
    comparing.add_argument("--results", type=Path, default=Path("results"))
    comparing.add_argument("--recorded", type=Path, required=True, help="folder of the study, such as recorded/h200")
    options = parser.parse_args(argv)
    try:
        if options.command == "compare":
            _print_comparison(options.results, options.recorded)
            return 0
        print(f"{export(options.results, options.recorded, options.requests)} points recorded in {options.recorded}")
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


def _print_comparison(results: Path, recorded: Path) -> None:
    found = comparison(results, recorded)
    if found.empty:
        print(f"{results} has no own measurement of a point of {recorded}; measure with --config recorded=null first.")
        return
    print(found.to_csv(index=False, lineterminator="\n", float_format="%.4g"), end="")
    ratio = found["total_throughput_tok_s_ratio"].median()
    print(f"# {len(found)} points, median throughput {ratio:.3f} of the recorded one", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
