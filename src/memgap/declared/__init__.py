"""Declarations of figures and tables: read from the text of their modules, so that Snakemake imports none of them.

A module declares `FIGURE = FigureSpec(...)` or `TABLE = TableSpec(...)` with literals only. `reads` names what it is
made from as "setting.table": the setting says which group of the configuration, the table which of its tables. A "?"
behind the setting says that it may be left out.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Setting:
    """What a setting of a figure or table names: an entry of a section of the configuration, or a list of them."""

    section: str
    what: str
    description: str
    many: bool = False


SETTINGS: Mapping[str, Setting] = {
    "sweep": Setting("sweeps", "sweep", "Name of the sweep that is drawn."),
    "comparison": Setting("sweeps", "sweep", "Name of the sweep whose experiments are the engines to compare."),
    "online": Setting("sweeps", "sweep", "Sweep of one server over batch caps."),
    "replication": Setting("sweeps", "sweep", "Sweep with replicas."),
    "sweeps": Setting("sweeps", "sweep", "Names of the sweeps.", many=True),
    "study": Setting("offline", "offline study", "Name of the offline study."),
    "others": Setting("sweeps", "sweep", "Sweeps whose models are shown beside those of `sweep`.", many=True),
    "twins": Setting("sweeps", "sweep", "Name of the sweep whose models' twins are drawn beside what was measured."),
    "studies": Setting("offline", "offline study", "Names of offline studies.", many=True),
    "loadtest": Setting("loadtests", "load test", "Name of the load test."),
    "tuning": Setting("tuning", "tuning", "Name of the tuning."),
    "lab": Setting("labs", "lab", "Name of the lab."),
    "labs": Setting("labs", "lab", "Names of labs.", many=True),
    "predictions": Setting("predictions", "predictions", "Name of the predictions that are drawn."),
}
"""Settings in other words than their section's name."""
DOCUMENTS = {
    "advice": "results/advisor/{}.yaml",
    "verified": "results/advisor/{}.verified.yaml",
    "twin": "results/twin/{}.csv",
}
"""What can be read of each model of a sweep, beside its tables."""
MODELS = "config.models"
"""Who reads this gets the architectures of the configuration's models."""


def setting_of(name: str) -> Setting:
    """Return what a setting names; one that is not in `SETTINGS` is called as its section of the configuration."""
    return SETTINGS.get(name) or Setting(name, f"entry of {name}", f"Name of an entry of `{name}`.")


@dataclass(frozen=True)
class Read:
    """One entry of `reads`."""

    setting: str
    table: str
    optional: bool

    @property
    def name(self) -> str:
        """What the figure or table asks its inputs for."""
        return f"{self.setting}.{self.table}"


def reads_of(texts: tuple[str, ...]) -> Iterator[Read]:
    """Yield the entries of a declaration's `reads`."""
    for text in texts:
        setting, table = text.split(".")
        yield Read(setting.removesuffix("?"), table, setting.endswith("?"))


def settings_schema(reads: tuple[str, ...], title: str, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON schema of the settings that a declaration's `reads` ask for."""
    optional = {read.setting: read.optional for read in reads_of(reads) if read.name != MODELS}
    properties: dict[str, Any] = {}
    for name in optional:
        described = {"description": descriptions.get(name, setting_of(name).description)}
        many = {"type": "array", "minItems": 1, "items": {"type": "string"}}
        properties[name] = described | (many if setting_of(name).many else {"type": "string"})
        if setting_of(name).many and optional[name]:
            del properties[name]["minItems"]
    required = [name for name, is_optional in optional.items() if not is_optional]
    schema = {"description": title, "type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": required} if required else {})


@cache
def declared(name: str, *folders: str) -> dict[str, dict[str, Any]]:
    """Return the arguments of every declaration called `name` in the package's folders, by module.

    `folders` are patterns below the package, such as "figures" or "kinds/*".
    """
    found = {}
    for path in sorted(path for folder in folders for path in PACKAGE.glob(f"{folder}/*.py")):
        arguments = arguments_in(path.read_text(encoding="utf-8"), name)
        if arguments is not None:
            found[".".join(("memgap", *path.relative_to(PACKAGE).with_suffix("").parts))] = arguments
    return found


def arguments_in(text: str, name: str) -> dict[str, Any] | None:
    """Return the keyword arguments of a module's `name = Some(...)`, all of them literals; None without one."""
    start = re.search(rf"^{name} = ", text, re.MULTILINE)
    if start is None:
        return None
    for end in re.finditer(r"\)$", text[start.start() :], re.MULTILINE):
        try:
            (statement,) = ast.parse(text[start.start() : start.start() + end.end()]).body
        except SyntaxError:  # the bracket is one inside
            continue
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            return {str(one.arg): ast.literal_eval(one.value) for one in statement.value.keywords}
    raise ValueError(f"{name} is declared by other than a call with literals")
