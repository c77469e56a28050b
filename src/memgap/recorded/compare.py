"""A new run beside a recorded one: the same points by key, ratios of what was measured."""

from pathlib import Path

import pandas as pd

from memgap.kinds.registry import kind_of
from memgap.recorded.files import all_points
from memgap.stats.averaging import steady_value
from memgap.store.results import Results

METRICS = (
    "total_throughput_tok_s",
    "decode_step_mean_ms",
    "itl_mean_ms",
    "ttft_mean_ms",
    "e2e_mean_ms",
    "kv_cache_usage_max_fraction",
)
COLUMNS = [
    *("key", "model", "batch_cap", "replicas", "repeat", "gpu_recorded", "gpu_new", "status_recorded", "status_new"),
    *(f"{metric}_ratio" for metric in METRICS),
]


def comparison(results: Path, recorded: Path) -> pd.DataFrame:
    """Return one row a recorded point that the results folder has measured itself; ratios are new by recorded.

    Raises UserError where there is no recorded data.
    """
    store, rows = Results(results).store, []
    for old in all_points(recorded):
        if store.status(old["key"]) in ("missing", "garbled"):
            continue
        new = store.read(old["key"]) or {}
        if "recorded" in new:
            continue
        record = old["record"]
        rows.append(
            {
                "key": old["key"],
                "model": record["model"]["name"],
                "batch_cap": kind_of(record).listed(record).batch_cap,
                "replicas": record["server"].get("replicas", 1),
                "repeat": record["repeat"],
                "gpu_recorded": old["hardware"]["gpu_name"],
                "gpu_new": new["hardware"]["gpu_name"] or new["hardware"]["device"],
                "status_recorded": old["status"],
                "status_new": new["status"],
                **{f"{metric}_ratio": _ratio(new["summary"], old["summary"], metric) for metric in METRICS},
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _ratio(new: dict[str, float], old: dict[str, float], metric: str) -> float | None:
    """Return new by old: of the steady parts where both have the value of theirs, else of the whole windows."""
    pair = steady_value(new, metric), steady_value(old, metric)
    above, below = pair if None not in pair else (new.get(metric), old.get(metric))
    return above / below if above and below else None
