"""The labs' pages: what of docs/labs/*.md follows from configuration and recorded points.

`python -m memgap.labs.pages docs/labs` writes it again, between markers; what is said by hand stays.
"""

import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from memgap.config.files import read_config_files
from memgap.labs.claims import VERDICTS, metrics_of
from memgap.labs.run import run_lab
from memgap.labs.tables import claims_table
from memgap.labs.values import AXIS, lab_rows, lab_table
from memgap.labs.verdicts import claims_text
from memgap.markers import replaced
from memgap.script import run_script
from memgap.session.watch import StopWatch
from memgap.store.results import Results
from memgap.workflow import load_study

BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- made until here -->"
SIZES = ("cpu", "gpu")
CONFIG = Path("config/labs")
MOST_METRICS = 8


@dataclass(frozen=True)
class Shown:
    """A lab as it was recorded: its plan, the table of its points, the table of its claims."""

    plan: Mapping[str, Any]
    points: pd.DataFrame
    claims: pd.DataFrame


def recorded_labs(file: Path, size: Path) -> list[Shown]:
    """Return the labs of a file, drawn from the recorded points that the file of the size names."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        return [_shown(plan, results) for plan in load_study(read_config_files([file, size])).labs.values()]


def _shown(plan: Mapping[str, Any], results: Path) -> Shown:
    run_lab(plan, results, StopWatch(), io.StringIO())
    rows = lab_rows(plan, Results(results).points)
    return Shown(plan, lab_table(plan, rows), claims_table(plan, rows, {}))


def part(file: Path, labs: Sequence[Shown], minutes: Mapping[str, float]) -> str:
    """Return what stands between the markers of a lab's page; `minutes` are what each size took."""
    lines = ["", "```", f".venv/bin/snakemake -j1 labs --configfile {file} {CONFIG}/size-cpu.yaml", "```", ""]
    took = [f"{minutes[size]:g} minutes on {where}" for size, where in _MACHINES.items() if size in minutes]
    lines += [f"It took {' and '.join(took)}; `size-gpu.yaml` is that of the GPU." if took else "Not measured yet.", ""]
    for one in labs:
        plan = one.plan
        lines += [f"**{plan['question']}** (`lab{plan['lab']}`)", ""]
        if plan["figure"]["panels"]:
            lines += [f"![Lab {plan['lab']}](figures/{plan['lab']}.png)", ""]
        lines += [claims_text(one.claims), "", _machines(one.claims), ""] if len(one.claims) else []
        lines += [numbers(one), ""]
    return "\n".join(lines)


_MACHINES = {"cpu": "two busy CPU cores", "gpu": "the GPU"}


def numbers(one: Shown) -> str:
    """Return the means over the blocks of what is drawn and claimed, a row an arm and choice of axis values."""
    drawn = [y for panel in one.plan["figure"]["panels"] if panel["kind"] != "series" for y in _listed(panel["y"])]
    metrics = list(dict.fromkeys([*drawn, *metrics_of(one.plan)]))
    shown = [name for name in metrics if name in one.points][:MOST_METRICS]
    axes = [f"{AXIS}{path}" for path in one.plan["axes"]]
    if not shown:
        return "No point of this lab is recorded."
    head = ["arm", *one.plan["axes"], "blocks", *(f"`{name}`" for name in shown)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for place, own in one.points[one.points["status"] == "ok"].groupby(["arm", *axes], sort=False):
        cells = [*place, str(len(own)), *(_number(own[name].mean()) for name in shown)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _machines(claims: pd.DataFrame) -> str:
    known = claims.dropna(subset=["device"])
    if known.empty:
        return "No claim is tested by recorded points."
    return f"{', '.join(sorted(set(known['device'])))}, {known['date_utc'].max()}."


def overview(pages: Mapping[str, tuple[str, Sequence[Shown]]], minutes: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of all labs: `pages` are title and labs by number."""
    lines = ["", "| lab | question | minutes on 2 cores | minutes on the GPU | verdicts |", "| --- | --- | --- | --- | --- |"]
    for number, (title, labs) in pages.items():
        counts = pd.concat([one.claims for one in labs])["verdict"].value_counts()
        told = ", ".join(f"{counts[one]} {one}" for one in VERDICTS if one in counts)
        took = [f"{minutes.get(number, {}).get(size, ''):}" for size in SIZES]
        asked = labs[0].plan["question"]
        lines.append(f"| [{title}]({number}.md) | {asked} | {took[0]} | {took[1]} | {told} |")
    return "\n".join([*lines, ""])


def pages(folder: Path) -> dict[Path, str]:
    """Return the text of every page of the folder as it should be."""
    minutes = yaml.safe_load((folder / "minutes.yaml").read_text(encoding="utf-8"))
    found, labs = {}, {}
    for page in sorted(folder.glob("[0-9]*.md")):
        file = CONFIG / f"{page.stem}.yaml"
        text = page.read_text(encoding="utf-8")
        shown = recorded_labs(file, CONFIG / "size-gpu.yaml")
        labs[page.stem] = (text.partition("\n")[0].removeprefix("# "), shown)
        found[page] = replaced(text, BEGIN, END, part(file, shown, minutes.get(page.stem, {})))
    readme = folder / "README.md"
    found[readme] = replaced(readme.read_text(encoding="utf-8"), BEGIN, END, overview(labs, minutes))
    return found


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _write(folder: Path) -> None:
    for page, text in pages(folder).items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_script(lambda: _write(Path(sys.argv[1]))))
