"""What the paper claims against what was measured, one row a claim and model, with a verdict and its reason.

The paper's figures are cited (arXiv 2503.08311, H100 with 64 GB, vLLM of 2024). A verdict is by a rule that stands
beside it: "holds", "holds, differs in size", "does not hold", or "not measured".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.stats.intervals import column_interval
from memgap.tables.alike import alike
from memgap.tables.claim import Claim, Found, verdict
from memgap.tables.documents import CLOSE as PREDICTED
from memgap.tables.fate import GOOD, fate, replicated
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.offline_claims import OFFLINE_CLAIMS
from memgap.tables.offline_study import OfflineTables, offline_of
from memgap.tables.provenance import provenance_line
from memgap.tables.tab04 import at_max_cap
from memgap.tables.tab04 import table as table_iv

COLUMNS = ["claim", "model", "unit", "paper", "measured", "low", "high", "verdict", "rule", "because"]
PLATEAU = 0.20
"""A throughput that grows by less than this while the cap doubles has reached its plateau."""


THROUGHPUT = "total_throughput_tok_s"


@dataclass(frozen=True)
class Study:
    """The tables that claims are measured from."""

    online: pd.DataFrame
    replication: pd.DataFrame
    advice: Mapping[str, Mapping[str, Any]]
    verified: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    offline: OfflineTables = field(default_factory=OfflineTables)

    @cached_property
    def good(self) -> pd.DataFrame:
        """The good points of one server."""
        return self.online[(fate(self.online) == GOOD) & ~replicated(self.online)]

    @cached_property
    def table_iv(self) -> pd.DataFrame:
        """Table IV, from which claims on replication are."""
        return table_iv(self.replication, self.online)

    def at(self, model: str, cap: int) -> pd.DataFrame:
        """Return the good points of one server of a model at a cap."""
        return self.good[(self.good["model"] == model) & (self.good["batch_cap"] == cap)]

    def caps(self, model: str) -> list[int]:
        """Return the caps of a model with good points, ascending."""
        return sorted({int(cap) for cap in self.good[self.good["model"] == model]["batch_cap"]})

    def throughput(self, model: str, cap: int) -> "Found":
        """Return the throughput at a cap with its interval over repeats, or of one run from within it."""
        return _mean_of(self.at(model, cap), THROUGHPUT)

    def best(self, model: str) -> int:
        """Return the cap with the highest throughput."""
        return max(self.caps(model), key=lambda cap: self.throughput(model, cap).value)

    def ratio(self, model: str, above: int, below: int, name: str = THROUGHPUT) -> "Found":
        """Return the throughput at one cap by that at another, by the same average of both."""
        groups = self.at(model, above), self.at(model, below)
        column = alike(name, *groups)
        return _ratio(*(_mean_of(group, column) for group in groups))


TABLE = TableSpec(
    name="claims",
    title="What the paper claims against what was measured",
    reads=(
        "replication.points",
        "online.points",
        "online.advice",
        "online.verified",
        "study?.offline",
        "study?.classes",
        "study?.counters",
        "study?.gpu",
    ),
    writes={"csv": "results/tables/claims.csv", "page": "results/tables/claims.html"},
    shown=("csv", "page"),
    digits=6,
    settings={"study": "Offline study that the claims on kernels and phases are judged by."},
    caption="""
One row a claim and model, with intervals, the rule of each verdict, and what explains a difference; a figure counts
as the paper's within 10 % or inside the interval. With `study` the claims on kernels and phases are judged by that
offline study, else they are "not measured"; one row is the host's: what detokenising in the engine's process leaves
of the throughput.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table in its forms."""
    replication, offline = inputs["replication.points"], offline_of(inputs)
    study = Study(
        inputs["online.points"],
        replication,
        inputs.by_model("online.advice"),
        inputs.by_model("online.verified"),
        offline,
    )
    apart = [provenance_line(replication), *([provenance_line(offline.points)] if len(offline.points) else [])]
    return forms(TABLE, claims_table(study), "; offline: ".join(apart))


def claims_table(study: Study) -> pd.DataFrame:
    """Return one row a claim and model with the columns of `COLUMNS`; bounds are empty where no interval is known."""
    models = list(dict.fromkeys([*study.online["model"].dropna(), *study.offline.models]))
    rows = [_row(claim, claim.measure(study, model), model) for claim in CLAIMS for model in models]
    rows += [_row(claim, claim.measure(study.offline, model), model) for claim in OFFLINE_CLAIMS for model in models]
    return pd.DataFrame([row for row in rows if row is not None], columns=COLUMNS)


def _row(claim: Claim[Any], found: Found | None, model: str) -> dict[str, Any] | None:
    paper = claim.paper.get(model)
    if found is None and paper is None and not claim.always:
        return None
    return {
        "claim": claim.sentence,
        "model": model,
        "unit": claim.unit,
        "paper": paper,
        "measured": found.value if found else None,
        "low": found.low if found and found.high > found.low else None,
        "high": found.high if found and found.high > found.low else None,
        "verdict": verdict(claim, paper, found),
        "rule": claim.rule,
        "because": found.because if found else "",
    }


def _mean_of(points: pd.DataFrame, column: str, because: str = "") -> Found:
    mean, interval = float(points[column].mean()), column_interval(points, column)
    return Found(mean, interval.low, interval.high, because) if interval else Found(mean, mean, mean, because)


def _ratio(above: Found, below: Found) -> Found:
    """Return a ratio; its interval combines the relative half-widths of both in quadrature."""
    ratio = above.value / below.value
    halves = [(one.high - one.low) / 2 / one.value for one in (above, below)]
    share = sum(half**2 for half in halves) ** 0.5
    return Found(ratio, ratio * (1 - share), ratio * (1 + share))


def _gain_over_one(study: Study, model: str) -> Found | None:
    caps = study.caps(model)
    if len(caps) < 2 or caps[0] != 1:
        return None
    best = study.best(model)
    found = study.ratio(model, best, 1)
    by_output = study.ratio(model, best, 1, "output_throughput_tok_s").value
    output = "" if math.isnan(by_output) else f"; {by_output:.1f} times by output tokens alone"
    one_ms = study.at(model, 1)["itl_mean_ms"].mean()
    because = f"best at cap {best} against {one_ms:.2f} ms a token at batch 1: another GPU, engine and host{output}"
    return Found(found.value, found.low, found.high, because)


def _plateau(study: Study, model: str) -> Found | None:
    caps = study.caps(model)
    half = [cap for cap in caps if cap <= caps[-1] / 2] if caps else []
    if not half:
        return None
    found = study.ratio(model, caps[-1], half[-1])
    because = f"from cap {half[-1]} to MAX = {caps[-1]}"
    return Found(found.value - 1, found.low - 1, found.high - 1, because)


def _share_at_b_opt(study: Study, model: str) -> Found | None:
    b_opt = _b_opt(study, model)
    if b_opt is None:
        return None
    best = study.best(model)
    found = study.ratio(model, b_opt, best)
    return Found(found.value, found.low, found.high, f"B_opt = {b_opt}, best at cap {best}")


def _kv_at_b_opt(study: Study, model: str) -> Found | None:
    b_opt = _b_opt(study, model)
    if b_opt is None:
        return None
    own = study.at(model, b_opt)
    pool_gib = own["kv_pool_bytes"].mean() / 2**30
    return _mean_of(own, "kv_cache_usage_max_fraction", f"the pool has {pool_gib:.0f} GiB here")


def _freed(study: Study, model: str) -> Found | None:
    memory = study.advice.get(model, {}).get("memory") or {}
    freed, device = memory.get("kv_freed_bytes"), memory.get("device_memory_bytes")
    if not freed or not device:
        return None
    share = freed / device
    return Found(share, share, share, f"of {device / 2**30:.0f} GiB, at B_opt = {study.advice[model]['b_opt']}")


def _as_advised(study: Study, model: str) -> Found | None:
    """Return the advised server's throughput by the predicted one; not a number where it did not serve."""
    found = study.verified.get(model, {})
    if found.get("holds") is None:
        return None
    ratio = found.get("predicted_and_measured", {}).get("total_throughput_tok_s", {}).get("ratio", float("nan"))
    return Found(ratio, ratio, ratio, str(found["sentence"]))


def _replication(study: Study, model: str) -> Found | None:
    rows = study.table_iv
    own = rows[(rows["model"] == model) & (rows["replicas"] > 1) & (rows["mps"] == "yes") & ~(rows["preemptions"] > 0)]
    own = own.dropna(subset=["gain_over_max_fraction"])
    if own.empty:
        return None
    best = own.sort_values("gain_over_max_fraction").iloc[-1].to_dict()
    at_max = at_max_cap(study.online, model)
    cap = int(at_max["batch_cap"].iloc[0]) if len(at_max) else None
    single = at_max["gpu_util_mean_fraction"].mean()
    because = (
        f"best of {len(own)}: {best['replicas']} replicas of cap {best['batch_cap']} under MPS against one at "
        f"MAX = {cap}, which NVML sees busy {single:.0%} of the time"
    )
    gain = float(best["gain_over_max_fraction"])
    return Found(gain, gain, gain, because)


def _mps(study: Study, model: str) -> Found | None:
    rows = study.table_iv
    rows = rows[(rows["model"] == model) & (rows["replicas"] == 2) & (rows["chunked_prefill"] == "yes")]
    pairs = rows.pivot_table(index="batch_cap", columns="mps", values="throughput_ktok_s").dropna()
    if not {"yes", "no"} <= set(pairs.columns) or pairs.empty:
        return None
    gains = pairs["yes"] / pairs["no"] - 1
    because = "two replicas at cap " + ", ".join(map(str, pairs.index))
    return Found(float(gains.mean()), float(gains.min()), float(gains.max()), because)


def _b_opt(study: Study, model: str) -> int | None:
    b_opt = study.advice.get(model, {}).get("b_opt")
    return int(b_opt) if b_opt is not None and not study.at(model, int(b_opt)).empty else None


CLAIMS: tuple[Claim[Study], ...] = (
    Claim(
        "Batching multiplies throughput over batch 1",
        "times",
        {"opt-1.3b": 29.6, "opt-2.7b": 34.4, "llama-2-7b": 40.1, "llama-2-13b": 34.5},
        _gain_over_one,
        lambda value: value > 10,
        "more than 10 times",
    ),
    Claim(
        "Throughput reaches a plateau below MAX: what the last doubling of the cap adds",
        "fraction",
        {},
        _plateau,
        lambda value: value < PLATEAU,
        f"less than {PLATEAU:.0%}",
    ),
    Claim(
        "B_opt keeps most of the best throughput",
        "fraction",
        {"opt-1.3b": 0.800, "opt-2.7b": 0.798, "llama-2-7b": 0.794, "llama-2-13b": 1.0},
        _share_at_b_opt,
        lambda value: value > 0.7,
        "more than 70 %",
    ),
    Claim(
        "B_opt needs a small part of the KV cache",
        "fraction",
        {"opt-1.3b": 0.160, "opt-2.7b": 0.277, "llama-2-7b": 0.458},
        _kv_at_b_opt,
        lambda value: value < 0.5,
        "less than half",
    ),
    Claim(
        "B_opt frees memory of the card",
        "fraction",
        {"opt-1.3b": 0.6323, "opt-2.7b": 0.4505, "llama-2-7b": 0.1051, "llama-2-13b": 0.0002},
        _freed,
        lambda value: value > 0,
        "more than nothing",
    ),
    Claim(
        "The advised server has the predicted throughput (the paper starts none)",
        "of predicted",
        {},
        _as_advised,
        lambda value: abs(value - 1) <= PREDICTED,
        f"within {PREDICTED:.0%}",
    ),
    Claim(
        "Replicas under MPS beat one server at MAX",
        "fraction",
        {"opt-1.3b": 0.337, "opt-2.7b": 0.128},
        _replication,
        lambda value: value > 0.02,
        "by more than 2 %",
    ),
    Claim(
        "MPS beats time slicing with two replicas",
        "fraction",
        {"opt-1.3b": 0.173},
        _mps,
        lambda value: value > 0.02,
        "by more than 2 %",
    ),
)
