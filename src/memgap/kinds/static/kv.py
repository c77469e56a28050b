"""The table of KV memory: what each point's layout and the others would hold, and what it was measured to hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from memgap.kinds.static.point import is_static
from memgap.models.architecture import ModelArchitecture
from memgap.stats import layouts
from memgap.stats.layouts import REASONS, Held, Lengths
from memgap.tables.entries import series_of
from memgap.tables.requests import NAMED, events_of, measured_points, requests_of, telemetry_of

COLUMNS = (
    *(*NAMED, "engine", "layout", "is_own", "block_tokens"),
    *("used_token_steps", "held_token_steps", *(f"{name}_token_steps" for name in REASONS)),
    *("wasted_fraction", "measured_wasted_fraction", "measured_held_token_steps"),
)
DEFAULT_BLOCK_TOKENS = 16
"""vLLM's usual block on a GPU, for comparison where no paged engine said its own."""
Floats = npt.NDArray[np.float64]


def kv_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a measured point and layout: paged, contiguous to the greatest length, and static batches.

    The layout that a point really had has `is_own` and what was measured: of static batches token-steps, which are
    exact; of a paged pool the mean over time of its usage, and of its running requests' tokens by the client's clock.
    """
    rows: list[dict[str, Any]] = []
    found = [one for one in measured_points(plan, points) if one[2]["status"] == "ok"]
    blocks = [block for _, _, point in found if (block := point["engine"].get("kv_block_tokens"))]
    for named, folder, point in found:
        record = point["record"]
        lengths = lengths_of(requests_of(folder))
        own, measured = _measured(record, point, folder)
        block = int(point["engine"].get("kv_block_tokens") or (blocks[0] if blocks else DEFAULT_BLOCK_TOKENS))
        most = int(
            point["engine"].get("max_model_len")
            or ModelArchitecture.from_dict(record["model"]["architecture"]).max_length
        )
        for layout, held in _layouts(lengths, record["batch_cap"], block, most).items():
            row = {**named, "engine": record["engine"]["package"], "layout": layout, "is_own": layout == own}
            rows.append({**row, "block_tokens": block, **_sums(held), **(measured if layout == own else {})})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def lengths_of(requests: pd.DataFrame) -> list[Lengths]:
    """Return the lengths of a point's requests in their order."""
    pairs = zip(requests["prompt_tokens_asked"], requests["output_tokens_asked"], strict=True)
    return [Lengths(int(prompt), int(output)) for prompt, output in pairs]


def used_tokens_at(times_s: Floats, requests: pd.DataFrame, events: pd.DataFrame) -> Floats:
    """Return the tokens in the KV cache that belong to requests in flight, at each moment.

    A request counts from its first token to its end (`last_token_s`): its prompt, and the tokens before the newest one.
    """
    made = np.zeros(len(times_s))
    by_request = {int(str(name)): np.sort(own.to_numpy()) for name, own in events.groupby("request")["time_s"]}
    columns = ("index", "prompt_tokens_asked", "first_token_s", "last_token_s")
    for index, prompt, first_s, last_s in zip(*(requests[name] for name in columns), strict=True):
        alive = (times_s >= first_s) & (times_s < last_s)
        came = np.searchsorted(by_request.get(int(index), np.zeros(0)), times_s, side="right")
        made += alive * (prompt + np.maximum(came - 1, 0))
    return made


def _layouts(lengths: Sequence[Lengths], cap: int, block: int, most: int) -> dict[str, Held]:
    return {
        "paged": layouts.paged(lengths, block),
        "contiguous-max-length": layouts.contiguous(lengths, most),
        "static-dynamic": layouts.static(lengths, cap, "dynamic"),
        "static-batch": layouts.static(lengths, cap, "batch"),
        "static-max-length": layouts.static(lengths, cap, "max-length", most),
    }


def _sums(held: Held) -> dict[str, Any]:
    return {
        "used_token_steps": held.used,
        "held_token_steps": held.held,
        **{f"{name}_token_steps": getattr(held, name) for name in REASONS},
        "wasted_fraction": held.wasted_fraction,
    }


def _measured(record: Mapping[str, Any], point: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the layout that a point had, and what was measured of it."""
    if is_static(record):
        held = static_held(steps_of(folder), record["batch_cap"], int(record["load"]["requests"]))
        needed = layouts.used(lengths_of(requests_of(folder)))
        measured = {"measured_held_token_steps": held, "measured_wasted_fraction": 1 - needed / held if held else None}
        return f"static-{record['server']['args']['kv-cache']}", measured
    pool = point["engine"].get("kv_pool_tokens")
    telemetry = telemetry_of(folder)
    if not pool or "kv_cache_usage_fraction" not in telemetry:
        return "paged", {}
    inside = telemetry[telemetry["time_s"].between(0, point["window"]["duration_s"])]
    inside = inside[inside["kv_cache_usage_fraction"] > 0]
    tokens = used_tokens_at(inside["time_s"].to_numpy(dtype=np.float64), requests_of(folder), events_of(folder))
    held_tokens = inside["kv_cache_usage_fraction"].to_numpy(dtype=np.float64) * pool
    steady = tokens > 0
    if not steady.any():
        return "paged", {}
    return "paged", {"measured_wasted_fraction": float(1 - tokens[steady].sum() / held_tokens[steady].sum())}


def static_held(steps: pd.DataFrame, size: int, requests: int) -> int:
    """Return the token-steps that the cache's tensors really had, over all batches of a point."""
    rows = (requests - steps["batch"] * size).clip(upper=size)
    return int((steps["kv_slots"] * rows).sum())


def steps_of(folder: Path) -> pd.DataFrame:
    """Return the steps of a point of static batches; raises UserError where the file is damaged."""
    return series_of(folder, "steps")


def startup_of(folder: Path) -> pd.DataFrame:
    """Return the memory of a point's server while it started, empty without the file; UserError where it is damaged."""
    return series_of(folder, "startup", missing=("time_s", "rss_bytes"))
