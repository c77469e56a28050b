"""Figures over load, users, requests and versions, on tables whose answers are known."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memgap.figures.attainment import attained
from memgap.figures.cost import USD
from memgap.figures.load_latency import knee
from memgap.figures.marks import on_front
from memgap.figures.per_user import GPU, USER
from memgap.figures.versions import trend, version_order
from memgap.tables.inputs import Inputs
from memgap.tables.points import as_table
from memgap.tables.tails import gaps_ms
from tests.support.drawing import draw
from tests.support.figures import texts


def row(key: str, cap: int = 8, **more: Any) -> dict[str, Any]:
    """Return a good point on an H200."""
    known = {"key": key, "model": "m", "engine": "vllm", "engine_version": "0.9.0", "status": "ok", "flags": ""}
    more = {"cap_side": "client", "batch_cap": cap, "repeat": 0, "replicas": 1, "gpus": 2, "device": "cuda", **more}
    numbers = {"itl_mean_ms": 10.0, "output_throughput_tok_s": 100.0 * cap, "ttft_median_ms": 20.0}
    return {**known, "dataset": "d", "gpu_name": "NVIDIA H200", **numbers, **more}


def goodput(key: str, sent: int, good: int, cap: int = 8) -> dict[str, Any]:
    """Return what goodput says of a point."""
    named = {"sweep": "s", "experiment": "e", "key": key, "model": "m", "batch_cap": cap, "repeat": 0, "slo": "fast"}
    counts = {"requests_sent": sent, "requests_good": good, "attained_fraction": good / sent}
    return {**named, **counts, "goodput_req_s": good / 10, "goodput_output_tok_s": 10.0 * good}


def test_rates_are_of_a_user_and_of_a_gpu_and_the_front_is_what_none_beats() -> None:
    table = as_table([row("a", 1, itl_mean_ms=2.0), row("b", 8), row("c", 4, itl_mean_ms=20.0)])
    figure, data = draw("frontier", Inputs({"sweep.points": table}))
    assert data.sort_values("batch_cap")[[USER, GPU]].to_numpy().tolist() == [[500, 50], [50, 200], [100, 400]]
    assert data.sort_values("batch_cap")["on_front"].tolist() == [True, False, True]
    assert "best of all" in texts(figure)
    assert on_front(pd.Series([1.0, 1.0]), pd.Series([2.0, 2.0])).all()


def test_a_price_is_of_a_gpu_hour_and_its_bounds_turn_round() -> None:
    table = as_table([row("a", 8, steady_output_throughput_ci95_fraction=0.1)])
    figure, data = draw("cost", Inputs({"sweep.points": table}, plan={"H200": 3.6, "H100": 1.0}))
    (found,) = data.to_dict("records")
    assert found[USD] == pytest.approx(3.6 / 3600 / 400 * 1e6)
    assert found[f"{USD}_low"] < found[USD] < found[f"{USD}_high"]
    assert "NVIDIA H200 at 3.6 USD an hour" in texts(figure)
    assert "no point has the energy of its GPU" in texts(figure)
    figure, data = draw("cost", Inputs({"sweep.points": table}))
    assert "no price: name one in usd_per_gpu_hour for NVIDIA H200" in texts(figure)
    assert data[USD].isna().all()


def test_the_knee_is_where_a_curve_bends() -> None:
    load = pd.Series([1.0, 2.0, 4.0, 8.0, 16.0])
    assert knee(load, pd.Series([1.0, 2.0, 4.0, 4.5, 4.6])) == 4.0
    assert math.isnan(knee(load, load))
    assert math.isnan(knee(load[:3], load[:3]))


def test_loads_are_rates_where_there_are_some() -> None:
    rated = as_table([row("a", 512, rate_req_s=2.0), row("b", 512, rate_req_s=4.0), row("c", 8)])
    figure, data = draw("load_latency", Inputs({"sweep.points": rated}))
    assert data["asked"].tolist() == [2.0, 4.0]
    assert "Offered rate (requests/s)" in texts(figure)


def test_requests_of_repeats_are_counted_together_up_to_the_edge() -> None:
    points = as_table([row("a", 1), row("b", 1, repeat=1), row("c", 8)]).assign(asked=[1.0, 1.0, 8.0])
    counts = pd.DataFrame([goodput("a", 100, 100), goodput("b", 100, 98), goodput("c", 100, 50)])
    data = attained(points, counts)
    assert data["requests_good"].tolist() == [198, 50]
    assert data["attained_low_fraction"].tolist() == pytest.approx([0.9643, 0.4038], abs=1e-4)
    assert data["edge"].tolist() == [1.0, 1.0]
    figure, drawn = draw("attainment", Inputs({"sweep.points": points, "sweep.goodput": counts}))
    assert len(drawn) == 2 and "m, fast" in texts(figure)


def test_lengths_take_the_best_load_that_keeps_the_slo() -> None:
    done = {"requests_completed": 10.0, "prompt_tokens": 1280.0, "output_tokens": 640.0}
    points = as_table([row("a", 1, **done), row("b", 8, **done), row("c", 8, **{**done, "dataset": "long"})])
    counts = pd.DataFrame([goodput("a", 10, 10, 1), goodput("b", 10, 9, 8), goodput("c", 10, 1, 8)])
    figure, data = draw("lengths", Inputs({"sweep.points": points, "sweep.goodput": counts}))
    assert data[["prompt_tokens", "output_tokens"]].to_numpy().tolist() == [[128, 64], [128, 64]]
    assert data["batch_cap"].tolist()[0] == 1.0 and math.isnan(data["batch_cap"].tolist()[1])
    assert "none" in texts(figure)


def test_tokens_that_came_together_share_their_gap() -> None:
    events = pd.DataFrame({"request": [0, 0, 1, 0], "time_s": [1.0, 1.1, 1.0, 1.4], "tokens": [1, 1, 1, 3]})
    assert np.sort(gaps_ms(events, {0})).tolist() == pytest.approx([100.0] * 4)
    assert not len(gaps_ms(events, {1}))


def test_tails_and_requests_say_which_point_is_drawn() -> None:
    points = as_table([row("a", 8), row("b", 16)])
    tail = {"model": "m", "batch_cap": 8, "metric": "ttft", "requests": 9, "latency_ms": 5.0, "beyond_fraction": 0.5}
    tails = pd.DataFrame([{**tail, "band_fraction": 0.4}]).assign(rate_req_s=np.nan)
    figure, data = draw("tails", Inputs({"sweep.points": points, "sweep.tails": tails}))
    assert len(data) == 1 and "m, 8" in texts(figure)
    times = {"intended_s": None, "sent_s": 0.0, "first_token_s": 1.0, "last_token_s": 2.0}
    requests = pd.DataFrame([{"key": "a", "index": n, "status": "ok", **times} for n in range(150)])
    gauges = pd.DataFrame({"key": ["a"], "time_s": [0.5], "running_reqs": [3.0], "waiting_reqs": [1.0]})
    gauges = gauges.assign(kv_cache_usage_fraction=0.5)
    inputs = {"sweep.requests": requests.assign(intended_s=np.nan), "sweep.gauges": gauges}
    figure, data = draw("waterfall", Inputs({"sweep.points": points, **inputs}))
    assert "m, cap 8, 100 of 150 requests" in texts(figure)
    assert data["record"].value_counts().to_dict() == {"request": 150, "sample": 1}


def test_versions_are_compared_in_pairs_of_like_points() -> None:
    old = [row("a", 1), row("b", 2), row("c", 4), row("lone", 64)]
    new = [row(f"{one['key']}2", one["batch_cap"], engine_version="0.10.0", itl_mean_ms=20.0) for one in old[:3]]
    data = trend(as_table(new + old))
    itl = data[data["metric"] == "itl_mean_ms"]
    assert itl["version"].tolist() == ["0.9.0", "0.10.0"]
    assert itl["ratio"].tolist() == pytest.approx([1.0, 2.0])
    assert itl["pairs"].tolist() == [4, 3]
    assert itl["ratio_low"].tolist()[1] == pytest.approx(2.0)
    assert sorted(["0.10.0", "0.9.0", "0.10.0rc1"], key=version_order)[0] == "0.9.0"
    figure, _ = draw("versions", Inputs({"sweep.points": as_table(new + old)}))
    assert "Ratio to the oldest version" in texts(figure)
