"""The line under a figure that says where its numbers come from."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from memgap.collect.fate import FAILED, INVALID, PREEMPTED, fate
from memgap.figures.points import failure_note, suspect_note
from memgap.figures.style import ALERT, GREY


def provenance_line(table: pd.DataFrame, recorded: bool = False) -> str:
    """Return engine, device, driver, dates and number of points, such as "vllm 0.32.0; NVIDIA H200; ..."."""

    def found(column: str) -> list[str]:
        return sorted(map(str, table[column].dropna().unique()))

    engines = sorted({f"{e} {v}" for e, v in table[["engine", "engine_version"]].dropna().itertuples(index=False)})
    devices = found("gpu_name") or [{"cpu": "CPU", "cuda": "GPU"}.get(one, one) for one in found("device")]
    drivers = [f"driver {one}" for one in found("driver")]
    days = sorted({one[:10] for one in found("date_utc")})
    dates = [days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"] if days else []
    fates = fate(table)
    counted = f"{len(table)} points"
    for kind in (PREEMPTED, INVALID, FAILED):
        if number := int((fates == kind).sum()):
            counted += f", {number} {kind}"
    parts = [*engines, *devices, *drivers, *dates, counted]
    if "memgap-mock" in found("engine"):
        parts.insert(0, "SIMULATED, not measured")
    return ("recorded data: " if recorded else "") + "; ".join(parts)


def write_provenance(figure: Figure, table: pd.DataFrame, recorded: bool = False, bars: str = "") -> None:
    """Write under the figure: provenance, what the bars are, the points in doubt, and in red those not drawn."""
    note = failure_note(table)
    texts = (provenance_line(table, recorded), bars, suspect_note(table))
    lines = [line for text in texts for line in textwrap.wrap(text, 130)]
    colour = GREY
    if note:
        lines += textwrap.wrap(note, 130)
        colour = ALERT
    figure.supxlabel("\n".join(lines), fontsize=6, color=colour)
