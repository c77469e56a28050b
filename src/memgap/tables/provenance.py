"""The line that says where numbers come from: recorded or simulated, engines, devices, drivers, dates, how many."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from memgap.foreign.files import SOURCE
from memgap.stats.averaging import WINDOW
from memgap.tables.fate import DRAWN, FAILED, INVALID, PREEMPTED, UNNEEDED, fate

SIMULATED = "memgap-mock"
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def provenance_line(table: pd.DataFrame, rates: bool = True) -> str:
    """Return engine, device, driver, dates and number of points, such as "vllm 0.32.0; NVIDIA H200; ...".

    `rates`: the numbers are rates and latencies, which a verdict is about.
    """
    fates = fate(table)
    counted = f"{int((fates != UNNEEDED).sum())} points"
    for kind in (PREEMPTED, INVALID, FAILED) if rates else (FAILED,):
        if number := int((fates == kind).sum()):
            counted += f", {number} {kind}"
    return source_line(table, [counted])


def averaging_note(table: pd.DataFrame) -> str:
    """Return over what the throughputs and latencies of the drawn points are averaged, "" where there are none."""
    if "averaging" not in table:
        return ""
    own = table[fate(table).isin(DRAWN) & table["averaging"].notna() & ~foreign(table)]
    whole = own[own["averaging"] == WINDOW]
    if own.empty:
        return ""
    if len(whole) == len(own):
        return "averages over the whole window"
    caps = "; ".join(
        f"{model} cap {', '.join(str(cap) for cap in sorted(set(group['batch_cap'])))}"
        for model, group in whole.groupby("model", sort=False)
    )
    return "averages over the steady part" + (f", over the whole window for want of one: {caps}" if caps else "")


def foreign(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each row whether it is a result of another tool."""
    return table["source"].fillna("").astype(str).str.startswith(SOURCE)


def source_line(table: pd.DataFrame, counted: Sequence[str]) -> str:
    """Return where the rows of a table come from, and behind it what was counted of them.

    Read where they are there: engine and engine_version (or engine with its version), gpu_name, device, driver,
    date_utc, source.
    """
    parts = [*_engines(table), *_devices(table), *(f"driver {one}" for one in _found(table, "driver"))]
    days = sorted({one[:10] for one in _found(table, "date_utc")})
    parts += [days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"] if days else []
    if any(SIMULATED in one for one in _found(table, "engine")):
        parts.insert(0, "SIMULATED, not measured")
    return "; ".join([*_recorded(table), *parts, *counted])


def _found(table: pd.DataFrame, column: str) -> list[str]:
    return sorted(map(str, table[column].dropna().unique())) if column in table else []


def _engines(table: pd.DataFrame) -> list[str]:
    if "engine_version" not in table:
        return _found(table, "engine")
    pairs = table[["engine", "engine_version"]].dropna().itertuples(index=False)
    return sorted({f"{engine} {version}" for engine, version in pairs})


def _devices(table: pd.DataFrame) -> list[str]:
    """Return the GPUs by name; where no row has one, what kind of device it was."""
    bare = [DEVICES.get(one, one) for one in _found(table, "device")]
    gpus = _found(table, "gpu_name")
    return sorted([*gpus, *(one for one in bare if one == "CPU")]) if gpus else bare


def _recorded(table: pd.DataFrame) -> list[str]:
    sources = table["source"].dropna().astype(str)
    recorded = int(sources.str.contains("recorded").sum())
    measured = int((sources == "measured").sum())
    others = Counter(one.removeprefix(f"{SOURCE}: ") for one in sources if one.startswith(SOURCE))
    beside = [f"{number} points of {name}" for name, number in others.items()]
    if recorded and measured:
        return [f"{recorded} points recorded, {measured} measured", *beside]
    return ["recorded data", *beside] if recorded else beside
