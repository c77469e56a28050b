"""The line under a figure that says where its numbers come from."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.points import failure_note, suspect_note
from memgap.figures.style import ALERT, GREY
from memgap.tables.fate import FAILED, INVALID, PREEMPTED, UNNEEDED, fate

CHARACTERS_PER_IN = 18
"""How many characters of the small print fit into an inch."""


def provenance_line(table: pd.DataFrame, rates: bool = True) -> str:
    """Return engine, device, driver, dates and number of points, such as "vllm 0.32.0; NVIDIA H200; ..."."""

    def found(column: str) -> list[str]:
        return sorted(map(str, table[column].dropna().unique()))

    engines = sorted({f"{e} {v}" for e, v in table[["engine", "engine_version"]].dropna().itertuples(index=False)})
    devices = found("gpu_name") or [{"cpu": "CPU", "cuda": "GPU"}.get(one, one) for one in found("device")]
    drivers = [f"driver {one}" for one in found("driver")]
    days = sorted({one[:10] for one in found("date_utc")})
    dates = [days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"] if days else []
    fates = fate(table)
    counted = f"{int((fates != UNNEEDED).sum())} points"
    for kind in (PREEMPTED, INVALID, FAILED) if rates else (FAILED,):
        if number := int((fates == kind).sum()):
            counted += f", {number} {kind}"
    parts = [*engines, *devices, *drivers, *dates, counted]
    if "memgap-mock" in found("engine"):
        parts.insert(0, "SIMULATED, not measured")
    recorded = int((table["source"] == "recorded").fillna(False).sum())
    if recorded:
        measured = int((table["source"] == "measured").fillna(False).sum())
        parts.insert(0, f"{recorded} points recorded, {measured} measured" if measured else "recorded data")
    return "; ".join(parts)


def write_provenance(
    figure: Figure, table: pd.DataFrame, *, bars: str = "", rates: bool = True, by: Sequence[str] = ("model",)
) -> None:
    """Write under the figure: provenance, what the bars are, the points in doubt, and in red those not drawn.

    `bars`: see `points.bars_note`. `rates`: the figure draws rates and latencies, which a verdict is about. `by`: the
    columns that name a point beside its cap.
    """
    width = round(CHARACTERS_PER_IN * figure.get_figwidth())
    note = failure_note(table, by) if rates else ""
    texts = (provenance_line(table, rates), bars, suspect_note(table, by) if rates else "")
    lines = [line for text in texts for line in textwrap.wrap(text, width)]
    colour = GREY
    if note:
        lines += textwrap.wrap(note, width)
        colour = ALERT
    figure.supxlabel("\n".join(lines), fontsize=6, color=colour)
