"""Table IV: replication on one GPU."""

import json
from typing import Any

import pandas as pd

from memgap.tables.fate import DRAWN, GOOD, fate
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import provenance_line
from memgap.tables.spec import TableSpec

KEY = ["model", "batch_cap", "replicas", "mps", "chunked_prefill"]
COLUMNS = [
    *KEY,
    "repeats",
    "throughput_ktok_s",
    "itl_mean_ms",
    "ttft_mean_ms",
    "e2e_mean_s",
    "kv_cache_usage_max_fraction",
    "gpu_util_mean_fraction",
    "mbu_fraction",
    "gpu_power_mean_w",
    "energy_per_output_token_j",
    "preemptions",
    "gain_over_same_cap_fraction",
    "gain_over_max_fraction",
    "max_cap",
    "verdict",
]
MEANS = {
    "itl_mean_ms": "itl_mean_ms",
    "ttft_mean_ms": "ttft_mean_ms",
    "kv_cache_usage_max_fraction": "kv_cache_usage_max_fraction",
    "gpu_util_mean_fraction": "gpu_util_mean_fraction",
    "mbu_fraction": "mbu_fraction",
    "gpu_power_mean_w": "gpu_power_mean_w",
    "energy_per_output_token_j": "energy_per_output_token_j",
    "preemptions": "preemptions",
}

TABLE = TableSpec(
    name="tab04",
    title="Table IV: replication on one GPU",
    reads=("replication.points", "online.points"),
    writes={
        "csv": "results/tables/tab04.csv",
        "page": "results/tables/tab04.html",
        "markdown": "results/tables/tab04.md",
        "latex": "results/tables/tab04.tex",
    },
    shown=("csv", "page"),
    digits=6,
    caption="""
One row a configuration of replicas, means over repeats. `gain_over_same_cap_fraction` compares it with one server of
the same cap and chunking, `gain_over_max_fraction` with one server at MAX, its largest cap without preemption.
Corrected: the published table adds a median TTFT and a mean ITL to an end-to-end latency, where here it is the mean
of the measured ones; shows the first server's KV usage only, here it is the fullest replica's; and has no baseline of
the same configuration, so that part of its gain is chunked prefill's. Preempted rows stay and say so.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table in its forms."""
    replication = inputs["replication.points"]
    return forms(TABLE, table(replication, inputs["online.points"]), provenance_line(replication))


def table(replication: pd.DataFrame, online: pd.DataFrame) -> pd.DataFrame:
    """Return table IV with the columns of `COLUMNS`; `online` holds the sweep of one server whose MAX is compared with.

    Shares and gains are fractions; a gain is empty where its baseline was not measured.
    """
    rows = with_chunking(replication)
    rows = rows[fate(rows).isin(DRAWN)]
    found = [_row(dict(zip(KEY, key, strict=True)), own) for key, own in rows.groupby(KEY, sort=False)]
    at_max = {model: throughput_at_max(online, model) for model in {row["model"] for row in found}}
    for row in found:
        row["gain_over_same_cap_fraction"] = _gain(row, _same_cap(row, found))
        cap, best = at_max[row["model"]]
        row["gain_over_max_fraction"] = _gain(row, best)
        row["max_cap"] = cap
    return pd.DataFrame(found, columns=COLUMNS).sort_values(KEY, ignore_index=True)


def with_chunking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column `chunked_prefill` ("yes", "no"); the engine's default is yes."""
    chunked = [json.loads(str(args)).get("enable-chunked-prefill", True) for args in table["server_args"]]
    return table.assign(chunked_prefill=["yes" if one else "no" for one in chunked])


def throughput_at_max(online: pd.DataFrame, model: str) -> tuple[int | None, float | None]:
    """Return MAX, the largest cap of one server without preemption, and its throughput in tok/s (mean of repeats)."""
    own = online[(online["model"] == model) & (online["replicas"] == 1)]
    good = own[fate(own) == GOOD]
    if good.empty:
        return None, None
    cap = int(good["batch_cap"].max())
    return cap, float(good[good["batch_cap"] == cap]["total_throughput_tok_s"].mean())


def _row(key: dict[str, Any], own: pd.DataFrame) -> dict[str, Any]:
    order = {"valid": 0, "suspect": 1, "invalid": 2}
    verdicts = sorted(own["verdict"].dropna(), key=lambda one: order.get(one, 3))
    return {
        **key,
        "repeats": len(own),
        "throughput_ktok_s": own["total_throughput_tok_s"].mean() / 1000,
        "e2e_mean_s": own["e2e_mean_ms"].mean() / 1000,
        **{name: own[column].mean() for name, column in MEANS.items()},
        "verdict": verdicts[-1] if verdicts else None,
    }


def _same_cap(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    same = ("model", "batch_cap", "chunked_prefill")
    for other in rows:
        if other["replicas"] == 1 and all(other[name] == row[name] for name in same):
            return float(other["throughput_ktok_s"]) * 1000
    return None


def _gain(row: dict[str, Any], baseline_tok_s: float | None) -> float | None:
    return None if not baseline_tok_s else row["throughput_ktok_s"] * 1000 / baseline_tok_s - 1
