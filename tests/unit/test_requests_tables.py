"""Goodput and the series of every second, on requests whose answers are known."""

import math

import numpy as np
import pandas as pd
import pytest

from memgap.tables.goodput import request_latencies, wilson_interval
from memgap.tables.over_time import point_series


def requests() -> pd.DataFrame:
    """Return three requests of 11 tokens: one from its intended send, one failed, one still short of its bounds."""
    return pd.DataFrame(
        {
            "status": ["ok", "timeout", "ok"],
            "intended_s": [0.0, math.nan, math.nan],
            "sent_s": [0.5, 0.0, 1.0],
            "first_token_s": [1.0, math.nan, 1.25],
            "last_token_s": [2.0, math.nan, 2.25],
            "end_s": [2.0, 3.0, 2.5],
            "output_tokens_server": [11, math.nan, 1],
            "output_tokens_seen": [11, 0, 1],
        }
    )


def test_latencies_count_from_the_intended_send() -> None:
    found = request_latencies(requests())
    assert found["ttft_ms"].tolist()[0::2] == [1000.0, 250.0]
    assert found["tpot_ms"].tolist()[0::2] == [100.0, 0.0]
    assert found["e2e_ms"].tolist()[0::2] == [2000.0, 1250.0]
    assert found["ok"].tolist() == [True, False, True]
    assert ((found["ttft_ms"] <= 300) & found["ok"]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("good", "sent", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_the_wilson_interval(good: int, sent: int, low: float, high: float) -> None:
    assert wilson_interval(good, sent) == pytest.approx((low, high), abs=1e-3)


def test_no_requests_have_no_share() -> None:
    assert all(math.isnan(one) for one in wilson_interval(0, 0))


def test_every_second_adds_up() -> None:
    events = pd.DataFrame({"request": [0, 0, 2], "time_s": [1.0, 2.0, 2.25], "tokens": [1, 10, 1]})
    telemetry = pd.DataFrame({"time_s": [-0.5, 0.1, 0.6, 2.0], "num_requests_running": [9, 1, 3, 2]})
    found = point_series(requests(), events, telemetry, 3)
    assert found["output_tok_s"].tolist() == [0, 1, 11]
    assert found["sent_req_s"].tolist() == [2, 1, 0]
    assert found["done_req_s"].tolist() == [0, 0, 3]
    assert found["in_flight_reqs"].tolist() == pytest.approx([1.5, 3.0, 1.5])
    assert found["running_reqs"].tolist()[::2] == [2.0, 2.0]
    assert math.isnan(found["running_reqs"][1])
    assert np.isnan(found["kv_cache_usage_fraction"]).all()
    assert found["ttft_mean_ms"].tolist()[1] == pytest.approx(375.0)
