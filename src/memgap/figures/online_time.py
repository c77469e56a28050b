"""Where the time of an online token goes: the engine's step, prefill, queue, API server, client.

A request's time from its send to its last token is cut by clocks that are all measured: the client's end-to-end time,
the API server's, and the engine's own queue, prefill and decode times of the same requests. Each is divided by the mean
output length, so that they stand beside a decode step. The decode part is the steady phase's ITL; of it, what the same
number of running requests takes in a batch of fixed size with asynchronous scheduling (interpolated, never
extrapolated) is the bare step, and the rest is what a server adds: prefill chunks in the same step, longer contexts,
messages between the processes.
"""

import math

import numpy as np
import pandas as pd

from memgap.figures.points import named
from memgap.tables.fate import GOOD, fate, replicated
from memgap.tables.offline_points import unprofiled
from memgap.tables.offline_study import OfflineTables

BARE, ADDED, STEP = "bare_step", "added", "step"
PARTS = {
    BARE: "decode step of the same batch, offline",
    ADDED: "what a server's step takes longer",
    STEP: "decode step",
    "prefill": "own prefill",
    "queue": "queue",
    "api_server": "API server and IPC",
    "client": "client and HTTP",
}
COLUMNS = ["model", "batch_cap", "part", "ms", "share_fraction", "total_ms", "running_reqs", "repeats"]
NEEDED = {
    "itl": "steady_itl_mean_ms",
    "running": "steady_mean_running_reqs",
    "client": "window_e2e_mean_ms",  # as the server's histograms, which know no steady part
    "server": "server_e2e_mean_ms",
    "queue": "server_queue_mean_ms",
    "prefill": "server_prefill_mean_ms",
    "decode": "server_decode_mean_ms",
}


def online_parts(tables: OfflineTables, online: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, batch cap and part with the columns of `COLUMNS`, ms a token of one request.

    Only good points of one server that have all clocks are in it; means over repeats.
    """
    if online.empty or not {*NEEDED.values(), "output_tokens", "requests_completed"} <= set(online.columns):
        return pd.DataFrame(columns=COLUMNS)
    good = _good(online).dropna(subset=list(NEEDED.values()))
    good = good.assign(
        tokens=good["output_tokens"] / good["requests_completed"],
        **{name: good[column] for name, column in NEEDED.items()},
    )
    rows = []
    for (model, cap), own in good.groupby(["model", "batch_cap"], sort=False):
        means = own[["tokens", *NEEDED]].mean()
        parts = _parts(means, _bare_step_ms(tables, str(model), float(means["running"])))
        total = sum(parts.values())
        head = {"model": model, "batch_cap": cap, "total_ms": total, "running_reqs": means["running"]}
        for part, ms in parts.items():
            rows.append({**head, "part": part, "ms": ms, "share_fraction": ms / total, "repeats": len(own)})
    return pd.DataFrame(rows, columns=COLUMNS)


def left_out_note(online: pd.DataFrame) -> str:
    """Return which good points are not drawn since they have no steady part, "" where there are none."""
    if NEEDED["itl"] not in online:
        return ""
    good = _good(online)
    rows = good[good[[NEEDED["itl"], NEEDED["running"]]].isna().any(axis=1)]
    return f"online tokens not drawn for want of a steady part: {named(rows)}" if len(rows) else ""


def _good(online: pd.DataFrame) -> pd.DataFrame:
    """Return the good points of one server."""
    return online[(fate(online) == GOOD) & ~replicated(online)]


def _parts(means: "pd.Series[float]", bare_ms: float) -> dict[str, float]:
    step = float(means["itl"])
    parts = {STEP: step} if math.isnan(bare_ms) else {BARE: bare_ms, ADDED: step - bare_ms}
    engine = float(means["queue"] + means["prefill"] + means["decode"])
    outside = {
        "prefill": float(means["prefill"]),
        "queue": float(means["queue"]),
        "api_server": float(means["server"]) - engine,
        "client": float(means["client"] - means["server"]),
    }
    return parts | {part: ms / float(means["tokens"]) for part, ms in outside.items()}


def _bare_step_ms(tables: OfflineTables, model: str, running: float) -> float:
    """Return the wall time of an asynchronous offline step at a batch between measured ones, else NaN."""
    points = unprofiled(tables).dropna(subset=["wall_ms"])
    own = points[(points["model"] == model) & (points["async_scheduling"] == "yes")]
    walls = own.groupby("batch")["wall_ms"].mean().sort_index()
    if walls.empty or not walls.index[0] <= running <= walls.index[-1]:
        return math.nan
    return float(np.interp(running, walls.index.to_numpy(dtype=float), walls.to_numpy(dtype=float)))
