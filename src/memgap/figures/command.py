"""Draws a figure by its name; what workflow/scripts/draw.py runs."""

from importlib import import_module
from pathlib import Path

from memgap.config.load import known
from memgap.declared.figures import figures, modules
from memgap.script import read_inputs, read_options, run_script, script_parser


def preload() -> None:
    """Import what figures are drawn with, and draw one, once for all jobs of a warm server."""
    from memgap.figures.files import drawn
    from memgap.figures.style import new_figure

    for module in modules().values():
        import_module(module)
    figure, (axes,) = new_figure(1)
    axes.plot([1, 2], label="a first text finds the fonts")
    axes.legend()
    drawn(figure)


def main(arguments: list[str] | None = None) -> int:
    """Draw one figure and write its files; returns the exit status."""
    parser = script_parser("Draw a figure.")
    parser.add_argument("--figure", required=True)
    parser.add_argument("--paper-reference", type=Path, help="folder with the paper's numbers, to overlay")
    parser.set_defaults(name="settings")
    read_options(parser)
    for form in ("pdf", "png", "csv"):
        parser.add_argument(f"--{form}", type=Path, required=True)
    options = parser.parse_args(arguments)

    def draw() -> None:
        from memgap.figures.files import write_figure  # which takes a second, and a wrong name none

        known(options.figure, figures(), "figure", "draw")
        spec = figures()[options.figure]
        inputs = read_inputs(options, spec.reads, spec.plan)
        figure, data = import_module(modules()[options.figure]).draw(inputs)
        write_figure(figure, data, options.pdf, options.png, options.csv)

    return run_script(draw)
