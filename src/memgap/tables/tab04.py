"""Table IV: replication on one GPU."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.alike import alike
from memgap.tables.fate import DRAWN, GOOD, fate
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import provenance_line

THROUGHPUT = "total_throughput_tok_s"
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
    "averaging",
    "of_window",
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
`averaging` and `of_window` say what is of the steady part and what of the whole window; where only one of two
configurations has a steady part, the gain is of both whole windows.
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
    groups = [(dict(zip(KEY, key, strict=True)), own) for key, own in rows.groupby(KEY, sort=False)]
    at_max = {model: at_max_cap(online, str(model)) for model in {key["model"] for key, _ in groups}}
    found = [_row(key, own) for key, own in groups]
    for row, (key, own) in zip(found, groups, strict=True):
        row["gain_over_same_cap_fraction"] = _gain(own, _same_cap(key, groups))
        row["gain_over_max_fraction"] = _gain(own, best := at_max[key["model"]])
        row["max_cap"] = None if best.empty else int(best["batch_cap"].iloc[0])
    return pd.DataFrame(found, columns=COLUMNS).sort_values(KEY, ignore_index=True)


def with_chunking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column `chunked_prefill` ("yes", "no"); the engine's default is yes."""
    chunked = [json.loads(str(args)).get("enable-chunked-prefill", True) for args in table["server_args"]]
    return table.assign(chunked_prefill=["yes" if one else "no" for one in chunked])


def at_max_cap(online: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the good points at MAX, the largest cap of one server without preemption; no row without one."""
    own = online[(online["model"] == model) & (online["replicas"] == 1)]
    good = own[fate(own) == GOOD]
    found: pd.DataFrame = good[good["batch_cap"] == good["batch_cap"].max()]
    return found


def _row(key: dict[str, Any], own: pd.DataFrame) -> dict[str, Any]:
    order = {"valid": 0, "suspect": 1, "invalid": 2}
    verdicts = sorted(own["verdict"].dropna(), key=lambda one: order.get(one, 3))
    return {
        **key,
        "repeats": len(own),
        "throughput_ktok_s": own[THROUGHPUT].mean() / 1000,
        "e2e_mean_s": own["e2e_mean_ms"].mean() / 1000,
        **{name: own[column].mean() for name, column in MEANS.items()},
        "verdict": verdicts[-1] if verdicts else None,
        "averaging": " and ".join(sorted(set(own["averaging"].dropna()))) or None,
        "of_window": "; ".join(sorted(set(own["of_window"].dropna()))) or None,
    }


def _same_cap(key: Mapping[str, Any], groups: Sequence[tuple[Mapping[str, Any], pd.DataFrame]]) -> pd.DataFrame | None:
    same = ("model", "batch_cap", "chunked_prefill")
    for other, rows in groups:
        if other["replicas"] == 1 and all(other[name] == key[name] for name in same):
            return rows
    return None


def _gain(own: pd.DataFrame, baseline: pd.DataFrame | None) -> float | None:
    """Return the gain in throughput over other points, by the same average of both; None without any."""
    if baseline is None or baseline.empty:
        return None
    column = alike(THROUGHPUT, own, baseline)
    below = float(baseline[column].mean())
    return float(own[column].mean()) / below - 1 if below else None
