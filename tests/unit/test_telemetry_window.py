"""Averages belong to the window; samples come on a clock; what cannot be read is absent."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from memgap.engine.prometheus import labels_of, parse_page, total
from memgap.mock_server.launch import MockServer
from memgap.telemetry import nvml, window
from memgap.telemetry.sampler import Sampler, read_rows
from tests.support.nvml import FakeNvml
from tests.support.waiting import until

ROWS = [
    {"time_s": -1.0, "num_requests_running": 100.0, "num_preemptions": 5.0},
    {"time_s": 0.5, "num_requests_running": 2.0, "num_preemptions": 5.0},
    {"time_s": 2.0, "num_requests_running": 4.0, "num_preemptions": 6.0},
    {"time_s": 3.0, "num_preemptions": 7.0},
    {"time_s": 9.0, "num_requests_running": 100.0, "num_preemptions": 9.0},
]


def test_a_mean_is_weighted_by_time_and_ignores_what_is_outside() -> None:
    # 2 holds from 0 to 2 s, 4 from 2 to 4 s
    assert window.time_weighted_mean(ROWS, "num_requests_running", 4.0) == pytest.approx((2 * 2 + 4 * 2) / 4)
    assert window.maximum(ROWS, "num_requests_running", 4.0) == 4.0


def test_a_counter_rises_from_before_to_after_the_window() -> None:
    assert window.increase(ROWS, "num_preemptions", 4.0) == 4.0
    assert window.increase(ROWS[1:4], "num_preemptions", 4.0) == 2.0


def test_what_was_not_sampled_is_absent() -> None:
    assert window.time_weighted_mean([], "x", 1.0) is None
    assert window.increase(ROWS, "gpu_energy_j", 4.0) is None
    summary = window.summarise(ROWS, 4.0, 10)
    assert "gpu_power_mean_w" not in summary
    assert summary["telemetry_samples"] == 3


def test_energy_per_token() -> None:
    rows = [{"time_s": -0.1, "gpu_energy_j": 100.0}, {"time_s": 4.2, "gpu_energy_j": 300.0}]
    summary = window.summarise(rows, 4.0, 50)
    assert summary["energy_j"] == 200.0
    assert summary["energy_per_output_token_j"] == 4.0


def test_the_parser_reads_exponents_labels_and_infinities() -> None:
    page = parse_page(
        '# TYPE a counter\na_total{x="1"} 1.5e+03\na_total{x="2"} 5e-1\n# TYPE i gauge\ni{k="v, \\"w\\""} 1.0\n'
    )
    assert total(page, "a") == 1500.5
    assert labels_of(page, "i") == {"k": 'v, "w"'}
    assert total(page, "none") is None
    with pytest.raises(ValueError, match=r".*"):
        parse_page("a b c d {")


def sampled(server: MockServer, out: Path, rows: int, interval_s: float) -> list[dict[str, float]]:
    """Sample a server until there are so many rows."""
    start = time.monotonic()
    with Sampler([server.url], "mock", [server.process.pid], [], interval_s, out) as sampler:
        sampler.wait_for_first_row()
        until(lambda: len(sampler.rows(start)) >= rows)
    return sampler.rows(start)


def test_the_sampler_keeps_its_clock_and_ends_with_its_reader(tmp_path: Path) -> None:
    with MockServer() as server:
        rows = sampled(server, tmp_path / "s.csv", 6, 0.1)
    gaps = [rows[i + 1]["time_s"] - rows[i]["time_s"] for i in range(len(rows) - 1)]
    assert sum(gaps) / len(gaps) > 0.09
    assert rows[-1]["num_requests_running"] == 0
    assert rows[-1]["rss_bytes"] > 1e6
    assert 0 <= rows[-1]["cpu_util_fraction"] <= 1


def test_a_stalled_metrics_endpoint_does_not_stop_the_sampler(tmp_path: Path) -> None:
    with MockServer("--fault", "stalled-metrics:30") as server:
        rows = sampled(server, tmp_path / "s.csv", 3, 0.1)
    assert all("num_requests_running" not in row for row in rows)
    assert all("rss_bytes" in row for row in rows)


def test_an_unfinished_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("time_monotonic_s,rss_bytes\n10.0,5\n11.0")
    assert read_rows(path, 4.0) == [{"rss_bytes": 5.0, "time_s": 6.0}]
    assert read_rows(tmp_path / "none.csv", 0.0) == []


def test_without_a_gpu_nvml_is_cleanly_absent() -> None:
    code = (
        "from memgap.telemetry.nvml import Nvml\n"
        "with Nvml() as g: print(g.sample(), g.facts(), bool(g.reason) or bool(g.devices))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip().endswith("True")


def test_gpus_are_summed_and_a_missing_counter_is_only_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml.Nvml() as gpu:
        sample, facts = gpu.sample(), gpu.facts()
    assert sample["gpu_util_fraction"] == pytest.approx(0.6)
    assert sample["gpu_mem_used_bytes"] == 200
    assert sample["gpu_energy_j"] == 10
    assert "gpu_power_w" not in sample
    assert facts["gpu_name"] == "FAKE"
    assert facts["cuda"] == "13.0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with nvml.Nvml() as gpu:
        assert gpu.devices == [1]


def test_what_an_engine_does_while_it_is_full_is_not_what_reaches_the_client() -> None:
    running = [10.0, 10.0, 10.0, 2.0, 10.0, 9.5]
    decoded = [0.0, 100.0, 200.0, 210.0, 220.0, 320.0]
    rows = [
        {"time_s": float(number), "num_requests_running": many, "generation_tokens": 0.0, "decoded_tokens": tokens}
        for number, (many, tokens) in enumerate(zip(running, decoded, strict=True))
    ]
    assert window.full_rate(rows, 5.0) == 100.0
    without = [{name: one for name, one in row.items() if name != "decoded_tokens"} for row in rows]
    assert window.full_rate(without, 5.0) == 0.0, "an engine that counts as tokens come has one counter"
    assert window.full_rate(rows[:1], 5.0) is None
    assert window.full_rate([{"time_s": 1.0}], 5.0) is None
