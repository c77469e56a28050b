"""What a figure says of itself. How that is read: `memgap.declared`; how to add a figure: docs/architecture.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memgap.declared import declared, settings_schema

COMMAND = "memgap.figures.command"
FOLDER = "figures"


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """A figure: what it is made from, where it goes, and how to read it.

    `title` heads its section of docs/figures.md, `caption` is that section and the report's text. `of`: "" where the
    configuration names the figure under `figures`, else the setting (`loadtest`, `tuning`) whose every group has the
    figure. `file`: its path below figures/ without the ending. `paper`: the paper's numbers are overlaid where there
    are some. `settings` describes settings in other words than `memgap.declared.SETTINGS`. `target`: one of Snakemake's
    targets beside `figures` that the figure belongs to. `plan`: a kind of plan that it gets (see `memgap.study.plan`):
    its group's, or the one for the whole configuration.
    """

    name: str
    title: str
    reads: tuple[str, ...]
    caption: str
    of: str = ""
    file: str = ""
    paper: bool = False
    category: str = "Figures"
    settings: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    plan: str = ""

    def path(self, group: str) -> str:
        """Return the path below figures/ without its ending."""
        return self.file.format(group=group) or self.name


@cache
def figures() -> dict[str, FigureSpec]:
    """Return all figures by name."""
    return {arguments["name"]: FigureSpec(**arguments) for arguments in declared("FIGURE", FOLDER).values()}


@cache
def modules() -> dict[str, str]:
    """Return the module of each figure by its name."""
    return {arguments["name"]: module for module, arguments in declared("FIGURE", FOLDER).items()}


def schema() -> dict[str, Any]:
    """Return the JSON schema of each figure that a configuration can name."""
    return {
        name: settings_schema(figure.reads, f"{figure.title}.", figure.settings)
        for name, figure in figures().items()
        if not figure.of
    }
