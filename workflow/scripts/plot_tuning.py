"""Draw a figure of a tuning: plot_tuning.py --figure speedup --table FILE --pdf FILE --png FILE --csv FILE."""

import argparse
import sys
from pathlib import Path

from memgap.figures.files import write_figure
from memgap.script import run_script
from memgap.tuning.figures import draw, read_configurations


def main(arguments: list[str] | None = None) -> int:
    """Draw one figure and write its files; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw a figure of a tuning.")
    parser.add_argument("--figure", required=True)
    parser.add_argument("--table", required=True, help="benchmarking_results.csv of the tuning")
    for form in ("pdf", "png", "csv"):
        parser.add_argument(f"--{form}", type=Path, required=True)
    options = parser.parse_args(arguments)

    def plot() -> None:
        figure, data = draw(options.figure, read_configurations(options.table))
        write_figure(figure, data, options.pdf, options.png, options.csv)

    return run_script(plot)


if __name__ == "__main__":
    sys.exit(main())
