"""Draw a load test: plot_loadtest.py --points TABLE --timeline TABLE --pdf FILE --png FILE --csv FILE."""

import argparse
import sys
from pathlib import Path

from memgap.figures import loadtest
from memgap.figures.files import write_figure
from memgap.script import run_script


def main(arguments: list[str] | None = None) -> int:
    """Draw the figure and write its files; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw a load test over time.")
    for name, what in (("points", "table of its points"), ("timeline", "its points over time")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    for form in ("pdf", "png", "csv"):
        parser.add_argument(f"--{form}", type=Path, required=True)
    options = parser.parse_args(arguments)

    def plot() -> None:
        figure, data = loadtest.draw(*loadtest.read(options.points, options.timeline))
        write_figure(figure, data, options.pdf, options.png, options.csv)

    return run_script(plot)


if __name__ == "__main__":
    sys.exit(main())
