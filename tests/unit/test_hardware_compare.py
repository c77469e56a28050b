"""Measured steps beside the roofline's, from made-up points whose answer is known."""

import math
from typing import Any

import pandas as pd
import pytest

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.models import load_registry
from memgap.roofline.gpus import find_gpu
from memgap.roofline.predict import Setup, predict_decode
from memgap.roofline.predictions import planned_predictions
from memgap.tables.points import as_table
from memgap.tables.roofline_error import PREDICTED, compare_steps, error_summary, offline_points, online_points
from tests.support.drawing import draw, of_sweep
from tests.support.records import small_config

ARCHITECTURES = {"opt-1.3b": load_registry()["opt-1.3b"].architecture}
H200 = find_gpu("H200")


def steps(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame([{"model": "opt-1.3b", "batch": 64, "context_tokens": 400, "step_ms": 4.0, **changes}])


def online_row(**changes: Any) -> dict[str, Any]:
    return {
        "sweep": "s",
        "experiment": "e",
        "key": "k",
        "model": "opt-1.3b",
        "batch_cap": 64,
        "repeat": 0,
        "mps": "no",
        "dataset": "chat",
        "source": "measured",
        "status": "ok",
        "flags": "",
        "verdict": "valid",
        "gpu_name": "NVIDIA H200",
        "dtype": "float16",
        "server_args": "{}",
        "replicas": 1,
        "mean_running_reqs": 60.0,
        "kv_cache_usage_mean_fraction": 0.25,
        "kv_pool_tokens": 96000.0,
        "kv_block_tokens": 17.0,
        "requests_completed": 100.0,
        "prompt_tokens": 16000.0,
        "output_tokens": 30000.0,
        "output_throughput_tok_s": 15000.0,
        **changes,
    }


def test_a_prompt_in_some_steps_touches_all_experts_in_those_and_not_a_few_more_in_every_step() -> None:
    mixtral = {"mixtral-8x7b": load_registry()["mixtral-8x7b"].architecture}
    row = {"model": "mixtral-8x7b", "batch": 1.0, "prompt_tokens": 128.0}
    alone = compare_steps(steps(**row), mixtral, H200).iloc[0]["lower_bound_ms"]
    full = compare_steps(steps(**row, prefill_sequences=1.0), mixtral, H200).iloc[0]["lower_bound_ms"]
    mean = compare_steps(steps(**row, prefill_sequences=1 / 64), mixtral, H200).iloc[0]["lower_bound_ms"]
    assert full > 3 * alone
    assert mean == pytest.approx(alone * 63 / 64 + full / 64)


def test_offline_points_need_four_columns() -> None:
    found = compare_steps(steps(), ARCHITECTURES, H200).iloc[0]
    expected = predict_decode(Setup(ARCHITECTURES["opt-1.3b"], H200), 64, 400)
    assert found["predicted_ms"] == pytest.approx(1000 * expected.step_s)
    assert found["lower_bound_ms"] == pytest.approx(1000 * expected.lower_bound_s)
    assert found["measured_over_predicted"] == pytest.approx(4.0 / found["predicted_ms"])
    assert found["intensity_flop_byte"] == pytest.approx(expected.intensity_flop_byte)
    assert found["achieved_flop_s"] * found["measured_over_predicted"] == pytest.approx(expected.flop_s)


def test_what_cannot_be_compared() -> None:
    unknown = compare_steps(steps(gpu_name="NVIDIA GeForce GT 710"), ARCHITECTURES)
    assert unknown[list(PREDICTED)].isna().all(axis=None)
    assert compare_steps(steps(step_ms=math.nan), ARCHITECTURES, H200)["predicted_ms"].isna().all()
    with pytest.raises(UserError, match="the column step_ms is missing"):
        compare_steps(steps().drop(columns="step_ms"), ARCHITECTURES)
    with pytest.raises(UserError, match="no architecture is known of the model 'x'"):
        compare_steps(steps(model="x"), ARCHITECTURES)


def test_online_points_by_hand() -> None:
    point = online_points(as_table([online_row()])).iloc[0]
    assert point["step_ms"] == pytest.approx(4.0), "60 requests, 15,000 tokens a second"
    assert point["context_tokens"] == pytest.approx(0.25 * 96000 / 60 - 8)
    assert point["prefill_sequences"] == pytest.approx(60 * 100 / 30000)
    assert point["prompt_tokens"] == 160
    pair = online_points(as_table([online_row(replicas=2, mean_running_reqs=120.0)])).iloc[0]
    assert pair["batch"] == 60
    assert pair["context_tokens"] == point["context_tokens"], "the pool and its usage are one server's"
    args = '{"kv-cache-dtype":"fp8","tensor-parallel-size":2}'
    other = online_points(as_table([online_row(server_args=args)])).iloc[0]
    assert (other["kv_dtype"], other["gpus"]) == ("fp8", 2)


def test_online_points_leave_out_what_was_not_measured() -> None:
    rows = [online_row(), online_row(), online_row(key="a", status="oom"), online_row(key="b", output_tokens=None)]
    rows += [online_row(key="c", kv_cache_usage_mean_fraction=None)]
    assert online_points(as_table(rows))["key"].tolist() == ["k"]
    assert online_points(as_table([])).empty
    assert error_summary(compare_steps(online_points(as_table([])), ARCHITECTURES)).empty


def test_prefill_and_replicas_add_work() -> None:
    alone = compare_steps(steps(), ARCHITECTURES, H200).iloc[0]
    mixed = compare_steps(steps(prefill_sequences=2.0, prompt_tokens=300.0), ARCHITECTURES, H200).iloc[0]
    assert mixed["predicted_ms"] > alone["predicted_ms"]
    assert mixed["intensity_flop_byte"] > alone["intensity_flop_byte"]
    two = compare_steps(steps(replicas=2), ARCHITECTURES, H200).iloc[0]
    assert two["predicted_ms"] == pytest.approx(2 * alone["predicted_ms"]), "each reads its own weights"


def test_the_summary_splits_by_model_batch_and_servers() -> None:
    points = pd.concat([steps(batch=4), steps(batch=32), steps(batch=300), steps(batch=32, replicas=2)])
    points["replicas"] = points["replicas"].fillna(1)
    summary = error_summary(compare_steps(points.reset_index(drop=True), ARCHITECTURES, H200))
    assert summary[summary["model"] == "all"][["servers", "batch", "points"]].values.tolist() == [
        ["one", "all", 3],
        ["one", "up to 8", 1],
        ["one", "8 to 64", 1],
        ["one", "above 256", 1],
        ["several", "all", 1],
        ["several", "8 to 64", 1],
    ]
    assert (summary["least"] <= summary["median"]).all()


def test_the_figure_draws_measured_points_beside_predictions() -> None:
    plan = {"models": ["opt-1.3b"], "gpus": ["A100", "H200"], "batch": [1, 64, 4096], "context_tokens": 400}
    table = as_table([online_row(), online_row(key="p", batch_cap=128, flags="preempted")])
    figure, data = draw("roofline", of_sweep(table, predictions=planned_predictions(plan), architectures=ARCHITECTURES))
    assert data["kind"].value_counts().to_dict() == {"predicted": 3, "measured": 2}
    assert set(data["gpu"]) == {"H200"}, "the GPU that was measured"
    assert figure.axes[0].get_title() == "Roofline of the H200"
    assert data["fits"].tolist() == ["yes", "yes", "no", "yes", "yes"]
    only, data = draw("roofline", of_sweep(as_table([]), predictions=planned_predictions(plan)))
    assert set(data["gpu"]) == {"A100"}
    assert only.axes[0].get_title() == "Roofline of the A100"
    with pytest.raises(UserError, match="no predictions are given"):
        draw("roofline", of_sweep(table))


def test_the_configuration_is_checked() -> None:
    asked = {"models": ["opt-1.3b"], "gpus": ["H200"], "batch": [1], "context_tokens": 400}
    config = {**small_config(), "predictions": {"p": asked}}
    checked = check_config({**config, "figures": {"roofline": {"sweep": "small", "predictions": "p"}}})
    assert checked["predictions"]["p"]["efficiency"] == 1.0
    with pytest.raises(UserError, match="unknown predictions 'q'"):
        check_config({**config, "figures": {"roofline": {"sweep": "small", "predictions": "q"}}})
    with pytest.raises(UserError, match=r"tables.roofline_error\.sweeps: unknown sweep 'x'"):
        check_config({**config, "tables": {"roofline_error": {"sweeps": ["x"]}}})
    with pytest.raises(UserError, match="the key 'context_tokens' is missing"):
        check_config({**small_config(), "predictions": {"p": {"models": ["a"], "gpus": ["H200"], "batch": [1]}}})


def test_an_offline_point_is_compared_by_its_wall_and_by_its_gpu_time() -> None:
    point = {
        **dict.fromkeys(("sweep", "experiment", "source", "gpu_name"), "x"),
        "key": "k",
        "model": "opt-1.3b",
        "batch": 64,
        "repeat": 0,
        "status": "ok",
        "profiler": "none",
        "context_mean_tokens": 330.0,
        "decode_step_mean_ms": 6.0,
        "gpu_ms": 4.0,
    }
    watched, failed = {**point, "key": "w", "profiler": "torch"}, {**point, "key": "f", "status": "crash"}
    found = compare_steps(offline_points(pd.DataFrame([point, watched, failed])), ARCHITECTURES, H200)
    assert list(found["servers"]) == ["none, wall", "none, GPU"], "profiled and failed points have no say"
    assert list(found["step_ms"]) == [6.0, 4.0]
    ratio = found["measured_over_predicted"]
    assert ratio[0] == pytest.approx(1.5 * ratio[1])
    summary = error_summary(found)
    assert set(summary[summary["model"] == "all"]["servers"]) == {"none, wall", "none, GPU"}
