"""Draw a figure: plot_figure.py --figure fig02 --table TABLE --pdf FILE --png FILE --csv FILE.

Figures of an offline study take its tables: --offline FILE and what else they draw (--classes, --timeline, ...).
"""

import argparse
import sys
from pathlib import Path

from memgap.advisor.advice import read_advice
from memgap.errors import UserError
from memgap.figures.comparison_inputs import read_comparison
from memgap.figures.files import write_figure
from memgap.figures.inputs import FigureInputs
from memgap.figures.offline_inputs import read_offline
from memgap.figures.plot import COMPARISONS, OFFLINE, draw
from memgap.roofline.predictions import read_predictions
from memgap.script import run_script
from memgap.study.plan import models_of
from memgap.tables.kernels import read_kernels_table
from memgap.tables.points import as_table, read_table


def main(arguments: list[str] | None = None) -> int:
    """Draw one figure and write its files; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw one of the paper's figures.")
    parser.add_argument("--figure", required=True)
    parser.add_argument("--table", type=Path, help="table of the sweep; of an online one for timeshare")
    parser.add_argument("--advice", type=Path, nargs="*", default=[], help="advice files, for figures 10 and 11")
    parser.add_argument("--kernels", type=Path, help="table of kernels, for figure 13")
    for kind, what in (
        ("offline", "points"),
        ("classes", "kernel classes"),
        ("timeline", "kernels of single steps"),
        ("counters", "counters of kernels"),
        ("gpu", "device counters over time"),
    ):
        parser.add_argument(f"--{kind}", type=Path, help=f"an offline study's table of {what}")
    for kind, what in (("engines", "points"), ("kv", "KV layouts"), ("memory", "memory over time")):
        parser.add_argument(f"--{kind}", type=Path, help=f"a comparison's table of {what}")
    parser.add_argument("--predictions", type=Path, help="table of predictions, for the roofline")
    parser.add_argument("--config", type=Path, help="checked configuration as JSON, for the roofline's models")
    parser.add_argument("--paper-reference", type=Path, help="folder with the paper's numbers, to overlay")
    for form in ("pdf", "png", "csv"):
        parser.add_argument(f"--{form}", type=Path, required=True)
    options = parser.parse_args(arguments)

    def plot() -> None:
        needed = "offline" if options.figure in OFFLINE else "engines" if options.figure in COMPARISONS else "table"
        if getattr(options, needed) is None:
            raise UserError(f"plot: the figure {options.figure} needs --{needed}.")
        table = read_table(options.table) if options.table is not None else as_table([])
        advice = read_advice(options.advice)
        kernels = read_kernels_table(options.kernels) if options.kernels is not None else None
        predictions = read_predictions(options.predictions) if options.predictions is not None else None
        models = models_of(options.config) if options.config is not None else {}
        kinds = ("offline", "classes", "counters", "gpu")
        offline = read_offline({**{kind: getattr(options, kind) for kind in kinds}, "kernels": options.timeline})
        comparison = read_comparison({kind: getattr(options, kind) for kind in ("engines", "kv", "memory")})
        inputs = FigureInputs(table, advice, options.paper_reference, kernels, predictions, models, offline, comparison)
        write_figure(*draw(options.figure, inputs), options.pdf, options.png, options.csv)

    return run_script(plot)


if __name__ == "__main__":
    sys.exit(main())
