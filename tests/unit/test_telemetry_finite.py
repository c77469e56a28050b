"""Numbers that are none, and lines that cannot be read, are left out and counted; what is beside them stays."""

import math
from pathlib import Path

import pytest

from memgap.engine.prometheus import parse_page, total
from memgap.engine.sglang import SglangAdapter
from memgap.engine.vllm import LATENCY_HISTOGRAMS, VllmAdapter
from memgap.kinds.locust import locust_csv
from memgap.session.phases import counter_changes
from memgap.telemetry import window
from memgap.telemetry.histograms import server_latencies
from memgap.telemetry.sampler import read_rows
from tests.support.sessions import runner

RUNNING = "vllm:num_requests_running"


@pytest.mark.parametrize(
    "line",
    [
        'vllm:cut_off{a="b" 1',
        "vllm:no_value",
        'vllm:word{a="b"} many',
        "vllm:bare{a=1} 2",
        "<html>",
        "{} 3",
        "vllm:two 1 2 3 4",
        "\x00\x01",
    ],
)
def test_a_line_that_cannot_be_read_takes_nothing_else_along(line: str) -> None:
    page = parse_page(f"{RUNNING} 3\n{line}\nvllm:kv_cache_usage_perc 0.5\n")
    assert (total(page, RUNNING), total(page, "vllm:kv_cache_usage_perc")) == (3.0, 0.5)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "nan", "1e999"])
def test_a_sum_with_a_part_that_is_no_number_is_unknown_and_not_less(value: str) -> None:
    page = parse_page(f'{RUNNING}{{engine="0"}} 4\n{RUNNING}{{engine="1"}} {value}\nvllm:num_requests_waiting 1\n')
    sample = VllmAdapter().metrics_sample(page)
    assert math.isnan(sample["num_requests_running"])
    assert sample["num_requests_waiting"] == 1.0


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_ranks_that_count_can_make_a_value_unknown(rank: str) -> None:
    rows = (
        f'sglang:token_usage{{tp_rank="0"}} {"NaN" if rank == "0" else 0.25}\nsglang:token_usage{{tp_rank="1"}} NaN\n'
    )
    usage = SglangAdapter().metrics_sample(parse_page(rows))["kv_cache_usage_fraction"]
    assert math.isnan(usage) if rank == "0" else usage == 0.25


def histogram(count: str, total_s: str, bucket: str = "1") -> str:
    name = "vllm:time_to_first_token_seconds"
    buckets = f'{name}_bucket{{le="0.1"}} {bucket}\n{name}_bucket{{le="+Inf"}} {count}\n'
    return f"{buckets}{name}_sum {total_s}\n{name}_count {count}\n"


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (histogram("0", "0", "0"), histogram("4", "0.2", "4"), {"mean", "p99_low", "p99_high"}),
        (histogram("0", "0", "0"), histogram("4", "NaN"), set()),
        (histogram("0", "0", "0"), histogram("NaN", "0.2"), set()),
        (histogram("0", "0", "0"), histogram("4", "0.2", "NaN"), {"mean"}),
        (histogram("0", "NaN"), histogram("4", "0.2"), set()),
        (histogram("9", "0.9", "9"), histogram("4", "0.2", "4"), set()),
        (histogram("3", "0.9", "3"), histogram("4", "0.2", "4"), set()),
    ],
    ids=["clean", "sum", "count", "bucket", "before", "set back", "sum set back"],
)
def test_histograms_that_cannot_be_read_say_nothing(before: str, after: str, found: set[str]) -> None:
    latencies = server_latencies(parse_page(before), parse_page(after), LATENCY_HISTOGRAMS)
    assert set(latencies) == {f"server_ttft_{one}_ms" for one in found}


def test_cells_that_are_no_numbers_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(
        "time_monotonic_s,num_requests_running,kv_cache_usage_fraction\n"
        "10,4,0.5\n11,nan,0.5\n12,4,inf\n13,4,\nnan,4,0.5\n"
    )
    rows = read_rows(path, 10.0)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    summary = window.summarise(rows, 4.0, 1)
    assert summary["mean_running_reqs"] == 4.0
    assert summary["num_requests_running_left_out"] == 1.0
    assert summary["kv_cache_usage_fraction_left_out"] == 1.0


def test_a_gauge_that_never_is_a_number_is_a_gap_of_the_whole_window() -> None:
    rows = [window.finite_cells({"time_s": t, "num_requests_running": 1.0, "gpu_power_w": math.nan}) for t in range(5)]
    summary = window.summarise(rows, 4.0, 1)
    assert summary["engine_telemetry_gap_s"] == 1.0
    assert summary["gpu_telemetry_gap_s"] == 4.0


def test_a_session_keeps_a_point_whose_metrics_page_is_odd_now_and_then(tmp_path: Path) -> None:
    session = runner(
        tmp_path,
        batch_cap=[4],
        load={"requests": 16, "warmup_requests": 2},
        server={"step-base-ms": 20.0, "fault": "odd-metrics:3"},
    )
    session.run()
    point = session.points()[4]
    assert point["status"] == "ok"
    assert point["summary"]["num_requests_running_left_out"] >= 1
    assert 0 < point["summary"]["mean_running_reqs"] <= 4
    assert point["summary"]["kv_cache_usage_mean_fraction"] > 0


def test_lines_and_cells_of_locusts_files_that_say_nothing_are_counted(tmp_path: Path) -> None:
    head = "Timestamp,Type,Name,Requests/s,50%,95%\n"
    lines = [
        "10,POST,/v1,1.5,N/A,N/A",
        "11,POST,/v1,NaN,3,4",
        "12,POST,/v1,2.5,inf,many",
        "13,POST",
        "14,POST,/v1,2,3,4",
    ]
    (tmp_path / "locust_stats_history.csv").write_text(head + "\n".join(lines) + "\n")
    assert locust_csv.left_out(tmp_path) == 4, (
        "three cells and a line; N/A is what Locust says of what it does not know"
    )
    assert [row["time_s"] for row in locust_csv.history(tmp_path, "POST", 10.0)] == [0.0, 1.0, 2.0, 4.0]
    assert locust_csv.left_out(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("kv_cache_usage_fraction", 1.0005, True),
        ("kv_cache_usage_fraction", 43.0, False),
        ("kv_cache_usage_fullest_fraction", 1.7, False),
        ("kv_cache_usage_fraction", -0.1, False),
        ("num_requests_running", -1.0, False),
        ("num_requests_waiting", 0.0, True),
        ("time_s", -3.0, True),
        ("gpu_power_w", 300.0, True),
    ],
)
def test_what_cannot_be_is_left_out_and_counted(column: str, value: float, kept: bool) -> None:
    assert window.finite_cells({column: value}) == ({column: value} if kept else {window.left_out(column): 1.0})


@pytest.mark.parametrize(
    ("before", "after", "sampled", "expected"),
    [
        ({"num_preemptions": 1.0}, {"num_preemptions": 3.0}, {}, {"preemptions": 2.0}),
        ({}, {"num_preemptions": 3.0}, {}, {"num_preemptions_left_out": 1.0}),
        ({"num_preemptions": 3.0}, {"num_preemptions": 1.0}, {}, {"num_preemptions_left_out": 1.0}),
        ({"num_preemptions": math.nan}, {"num_preemptions": 1.0}, {}, {"num_preemptions_left_out": 1.0}),
        ({}, {}, {"num_preemptions": 1.0}, {"num_preemptions_left_out": 1.0}),
        ({}, {}, {"num_requests_running": 1.0}, {}),
    ],
)
def test_a_counter_that_cannot_be_read_on_both_sides_is_unknown(
    before: dict[str, float], after: dict[str, float], sampled: dict[str, float], expected: dict[str, float]
) -> None:
    assert counter_changes(before, after, [sampled]) == expected
