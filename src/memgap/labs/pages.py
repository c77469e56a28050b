"""The labs' pages: what of docs/labs/*.md follows from configuration and recorded points, between markers.

What is said by hand stands outside of them: how to read the lab, places in the engine's source, questions.
"""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.labs.names import AXIS, VERDICTS
from memgap.labs.run import run_lab
from memgap.labs.tables import tables_of
from memgap.labs.verdicts import claims_text
from memgap.markers import replaced
from memgap.own_yaml import own_yaml
from memgap.points.point import Record
from memgap.session.watch import StopWatch
from memgap.store.results import Results

BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- made until here -->"
CONFIG = Path("config/labs")
MOST_METRICS = 8
NO_GPU = "recorded data of a GPU is missing; [gpu.md](gpu.md) is how to measure it."
Plans = Callable[[list[Path]], Mapping[str, Record]]
"""Gives the plans of labs by name from configuration files."""


@dataclass(frozen=True)
class Shown:
    """A lab as it was recorded: its plan, the table of its points, the table of its claims."""

    plan: Mapping[str, Any]
    points: pd.DataFrame
    claims: pd.DataFrame


def lab_pages(folder: Path, plans: Plans) -> dict[Path, str]:
    """Return the text that every page of a folder should have, drawn from recorded points."""
    minutes = own_yaml((folder / "minutes.yaml").read_text(encoding="utf-8"))
    found, labs = {}, {}
    for page in sorted(folder.glob("[0-9]*.md")):
        file, text = CONFIG / f"{page.stem}.yaml", page.read_text(encoding="utf-8")
        shown = recorded(plans([file, CONFIG / "size-cpu.yaml", CONFIG / "recorded-cpu.yaml"]))
        labs[page.stem] = (text.partition("\n")[0].removeprefix("# "), shown)
        found[page] = replaced(text, BEGIN, END, part(file, shown, minutes.get(page.stem)))
    readme = folder / "README.md"
    found[readme] = replaced(readme.read_text(encoding="utf-8"), BEGIN, END, overview(labs, minutes))
    return found


def recorded(plans: Mapping[str, Record]) -> list[Shown]:
    """Return labs, drawn from the recorded points that their plans name."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for plan in plans.values():
            if plan["recorded"] is not None:  # else nothing is restored, and nothing shall be measured here
                run_lab(plan, Path(folder), StopWatch(), io.StringIO())
            tables = tables_of(plan, Results(Path(folder)).points)
            found.append(Shown(plan, tables["points"], tables["claims"]))
    return found


def part(file: Path, labs: Sequence[Shown], minutes: float | None) -> str:
    """Return what stands between the markers of a lab's page; `minutes` is what the small size took."""
    lines = ["", "```", f".venv/bin/snakemake -j1 labs --configfile {file} {CONFIG}/size-cpu.yaml", "```", ""]
    lines += [f"It took {minutes} minutes on two cores that did other work beside it.", ""] if minutes else []
    lines += [f"On a GPU (`{CONFIG}/size-gpu.yaml`): **not tested**, {NO_GPU}", ""]
    for one in labs:
        name = one.plan["lab"]
        lines += [f"### {one.plan['question']}", ""]
        lines += [f"![Figure of lab {name}](figures/{name}.png)", ""] if one.plan["figure"]["panels"] else []
        lines += [claims_text(one.claims), "", _machines(one.claims), "", numbers(one), ""]
    return "\n".join(lines)


def numbers(one: Shown) -> str:
    """Return the means over the blocks of what is drawn and claimed, a row an arm and choice of axis values."""
    drawn = [y for panel in one.plan["figure"]["panels"] if panel["kind"] != "series" for y in _listed(panel["y"])]
    claimed = [str(text) for spec in one.plan["claims"].values() for value in spec.values() for text in _listed(value)]
    shown = [name for name in dict.fromkeys([*drawn, *claimed]) if name in one.points and not name.startswith(AXIS)]
    shown = [name for name in shown if pd.api.types.is_numeric_dtype(one.points[name])][:MOST_METRICS]
    axes = [f"{AXIS}{path}" for path in one.plan["axes"]]
    measured = one.points[one.points["status"] == "ok"] if len(one.points) else one.points
    if not len(measured):
        return "No point of it is recorded."
    head = ["arm", *one.plan["axes"], "blocks", *(f"`{name}`" for name in shown)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for _, own in measured.groupby(["arm", *axes], sort=False):
        place = [str(own.iloc[0][name]) for name in ["arm", *axes]]
        lines.append(f"| {' | '.join([*place, str(len(own)), *(_number(own[name].mean()) for name in shown)])} |")
    return "\n".join(lines)


def overview(labs: Mapping[str, tuple[str, Sequence[Shown]]], minutes: Mapping[str, float]) -> str:
    """Return the table of all labs, given by number as title and parts."""
    head = ["lab", "questions", "minutes on 2 cores", "verdicts of the small size"]
    lines = ["", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for number, (title, parts) in labs.items():
        counts = pd.concat([one.claims for one in parts])["verdict"].value_counts()
        told = ", ".join(f"{counts[one]} {one}" for one in VERDICTS if one in counts)
        asked = " ".join(one.plan["question"] for one in parts)
        lines.append(f"| {' | '.join([f'[{title}]({number}.md)', asked, str(minutes.get(number, '')), told])} |")
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _machines(claims: pd.DataFrame) -> str:
    known = claims.dropna(subset=["device"])
    if known.empty:
        return "No claim of it is tested by recorded points."
    return f"{', '.join(sorted(set(known['device'])))}, {known['date_utc'].max()}."


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
