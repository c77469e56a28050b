"""Goodput: requests a second that keep every bound of an SLO, and the share that does with its Wilson interval.

An SLO is analysis and no part of a measurement: another bound needs no new run.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.requests import NAMED, measured_points, requests_of

Z_95 = 1.959964
COLUMNS = (
    *NAMED,
    "slo",
    "requests_sent",
    "requests_good",
    "attained_fraction",
    "attained_low_fraction",
    "attained_high_fraction",
    "goodput_req_s",
    "goodput_output_tok_s",
)


TABLE = TableSpec(
    name="goodput",
    title="Goodput of a sweep",
    of="sweep",
    plan="goodput",
    writes={"goodput": "results/tables/{group}.goodput.csv"},
    wanted=("goodput",),
    when="slos",
    shown=("goodput",),
    caption="""
Goodput of the sweep {group}: for every point and SLO the requests that kept all its bounds, their share with its 95 %
Wilson interval, and how many a second they were.
""",
)


READ = {"goodput": Columns("a table of goodput", COLUMNS, ("sweep", "experiment", "key", "model", "slo"), numbers=True)}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"goodput": goodput_table(inputs.plan, inputs.points)}


def goodput_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point and SLO of `plan["slos"]`; failed requests count as sent and not as good."""
    rows = []
    for named, folder, point in measured_points(plan, points):
        latencies = request_latencies(requests_of(folder))
        duration_s = point["window"]["duration_s"]
        for slo, bounds in plan["slos"].items():
            good = latencies["ok"].copy()
            for metric, bound_ms in bounds.items():
                good &= latencies[metric] <= bound_ms
            sent, kept = len(latencies), int(good.sum())
            low, high = wilson_interval(kept, sent)
            tokens = float(latencies.loc[good, "output_tokens"].sum())
            rows.append(
                {
                    **named,
                    "slo": slo,
                    "requests_sent": sent,
                    "requests_good": kept,
                    "attained_fraction": kept / sent if sent else math.nan,
                    "attained_low_fraction": low,
                    "attained_high_fraction": high,
                    "goodput_req_s": kept / duration_s,
                    "goodput_output_tok_s": tokens / duration_s,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def request_latencies(requests: pd.DataFrame) -> pd.DataFrame:
    """Return for each sent request `ok`, `output_tokens`, and in ms `ttft_ms`, `tpot_ms`, `e2e_ms`.

    Times count from the intended send where there is one. TPOT of a single token is 0; of several choices see
    `memgap.load.records.RequestResult.tpot_s`.
    """
    sent = requests[requests["sent_s"].notna()]
    start_s = sent["intended_s"].fillna(sent["sent_s"])
    tokens = sent["output_tokens_server"].fillna(sent["output_tokens_seen"])
    decode_s = sent["last_token_s"] - sent["first_token_s"]
    gaps = tokens - 1
    if "decode_s" in sent:  # points of earlier versions do not have it
        decode_s = sent["decode_s"].fillna(decode_s)
        gaps = tokens - sent["choices"].clip(lower=1)
    return pd.DataFrame(
        {
            "ok": sent["status"] == "ok",
            "output_tokens": tokens,
            "ttft_ms": (sent["first_token_s"] - start_s) * 1e3,
            "tpot_ms": (decode_s / gaps.where(gaps > 0)).where(gaps > 0, 0.0) * 1e3,
            "e2e_ms": (sent["last_token_s"] - start_s) * 1e3,
        }
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927); not a number without trials."""
    if trials == 0:
        return math.nan, math.nan
    share = successes / trials
    denominator = 1 + Z_95**2 / trials
    middle = (share + Z_95**2 / (2 * trials)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)
