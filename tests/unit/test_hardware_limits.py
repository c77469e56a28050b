"""MBU and MFU of points with round numbers, and nothing where a peak is unknown."""

from typing import Any

import pytest

from memgap.models import load_registry
from memgap.roofline.limits import gpu_table, peaks, utilization


def point(gpu: str | None = "NVIDIA H200", **changes: Any) -> dict[str, Any]:
    architecture = load_registry()["opt-1.3b"].architecture
    summary = {
        "mean_running_reqs": 64.0,
        "output_throughput_tok_s": 6400.0,
        "kv_cache_usage_mean_fraction": 0.5,
        "requests_completed": 10.0,
        "prompt_tokens": 1000.0,
        "output_tokens": 3000.0,
        "duration_s": 2.0,
        **changes,
    }
    return {
        "hardware": {"gpu_name": gpu, "gpu_count": 1},
        "summary": summary,
        "engine": {"weights_bytes": 8e9, "kv_pool_bytes": 32e9},
        "record": {
            "server": {"replicas": 1, "args": {}},
            "engine": {"adapter": "vllm"},
            "model": {"architecture": architecture.to_dict(), "dtype": "float16"},
        },
    }


def test_bytes_and_operations_by_the_peaks() -> None:
    found = utilization(point())
    assert found["mbu_fraction"] == pytest.approx((8e9 + 16e9) * 100 / 4.8e12)
    architecture = load_registry()["opt-1.3b"].architecture
    attention = 4 * architecture.layers * architecture.hidden_size * 400 * 400 / 2
    flop = 10 * (2 * architecture.parameter_count() * 400 + attention)
    assert found["mfu_fraction"] == pytest.approx(flop / 2 / 989e12)


def test_several_gpus_have_the_peaks_of_all_and_move_what_all_hold() -> None:
    one, two = (
        point(),
        point(
            output_throughput_tok_s=12800.0,
            mean_running_reqs=128.0,
            requests_completed=20.0,
            prompt_tokens=2000.0,
            output_tokens=6000.0,
        ),
    )
    two["hardware"] |= {"gpu_count": 2}
    two["engine"] = {"weights_bytes": 16e9, "kv_pool_bytes": 64e9}
    assert utilization(two) == pytest.approx(utilization(one))
    two["hardware"] = {"gpu_name": "NVIDIA H200", "gpu_count": 1, "gpu_count_of_server": 2}
    assert utilization(two) == pytest.approx(utilization(one))


def test_a_part_of_a_gpu_has_no_peaks() -> None:
    part = point(gpu="NVIDIA H200 MIG 3g.71gb")
    part["hardware"]["gpus"] = [{"memory_bytes": 71 * 2**30, "sms": 60}]
    assert utilization(part) == {}
    other = point()
    other["hardware"] |= {"gpus": [{"memory_bytes": 71 * 2**30}]}
    assert utilization(other) == {}


def test_the_longest_name_matches_and_unknown_ones_do_not() -> None:
    assert peaks("NVIDIA H100 80GB HBM3") == gpu_table()["NVIDIA H100 80GB HBM3"]
    assert peaks("NVIDIA L40S") == gpu_table()["NVIDIA L40S"]
    assert peaks("NVIDIA GeForce GT 710") is None
    assert peaks(None) is None


def test_nothing_is_guessed() -> None:
    assert utilization(point(gpu=None)) == {}
    assert utilization(point(mean_running_reqs=0.0)) == {}
    assert "mbu_fraction" not in utilization(point(kv_cache_usage_mean_fraction=None))


def test_experts_that_no_token_chose_are_not_read() -> None:
    one = point(mean_running_reqs=1.0, output_throughput_tok_s=100.0)
    dense = utilization(one)["mbu_fraction"]
    shape = load_registry()["mixtral-8x7b"].architecture
    one["record"]["model"]["architecture"] = shape.to_dict()
    routed = 32 * 8 * 3 * 4096 * 14336
    unread = 0.75 * routed / shape.parameter_count()
    assert dense - utilization(one)["mbu_fraction"] == pytest.approx(8e9 * unread * 100 / 4.8e12)


def test_operations_in_8_bits_are_held_against_their_own_peak() -> None:
    plain, rounded = point(), point()
    rounded["record"]["server"]["args"] = {"quantization": "fp8"}
    assert utilization(plain)["mfu_fraction"] / utilization(rounded)["mfu_fraction"] == pytest.approx(1979 / 989)
