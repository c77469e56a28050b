"""Each doubt about a point is found, says why, and clean points have none."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from memgap.recorded.files import all_points
from memgap.verdict import judge
from memgap.verdict.batches import judge_batch, judged_again, machine_summary
from memgap.verdict.evidence import Evidence
from tests.support.sessions import runner

CLEAN_SUMMARY = {
    "itl_mean_ms": 10.0,
    "ttft_mean_ms": 60.0,
    "server_ttft_mean_ms": 55.0,
    "e2e_mean_ms": 1000.0,
    "server_e2e_mean_ms": 990.0,
    "requests_sent": 100.0,
    "requests_failed": 0.0,
    "requests_miscounted": 0.0,
    "output_tokens": 10000.0,
    "output_tokens_failed": 0.0,
    "server_output_tokens": 10000.0,
    "prefix_cache_queries": 5000.0,
    "prefix_cache_hits": 0.0,
    "preemptions": 0.0,
    "duration_s": 20.0,
    "telemetry_samples": 40.0,
    "engine_telemetry_gap_s": 0.5,
    "gpu_telemetry_gap_s": 0.5,
    "tokens_per_chunk_mean": 1.01,
    "api_server_cpu_mean_cores": 0.4,
    "gpu_throttled_fraction": 0.0,
    "gpu_sm_clock_mean_mhz": 1950.0,
    "gpu_foreign_processes_max": 0.0,
    "mean_waiting_reqs": 1.0,
    "steady_share_fraction": 0.8,
    "steady_mean_running_reqs": 63.0,
}
CLEAN_CLIENT = {
    "loop_lag_p99_ms": 1.0,
    "loop_lag_max_ms": 20.0,
    "standstill_s": 0.0,
    "start_late_ms": 0.0,
    "cpu_fraction": 0.1,
    "coalesced_fraction": 0.0,
    "send_slip_p99_ms": None,
}


def evidence(arrival: str = "closed", kind: str = "random", **changes: float) -> Evidence:
    """Return a clean point with some values changed."""
    summary, client = dict(CLEAN_SUMMARY), dict(CLEAN_CLIENT)
    for name, value in changes.items():
        (client if name in client else summary)[name] = value
    record = {"load": {"arrival": arrival, "concurrency": 64}, "dataset": {"kind": kind}}
    return Evidence(record, summary, client, {"gpu_sm_clock_max_mhz": 1980})


def test_a_clean_point_is_valid_and_the_engine_was_its_limit() -> None:
    found = judge(evidence())
    assert (found.verdict, found.limit, found.reasons) == ("valid", "engine", ())


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "limit"),
    [
        ({"loop_lag_p99_ms": 8.0}, "loop_lag", "suspect", "client"),
        ({"loop_lag_p99_ms": 80.0}, "loop_lag", "invalid", "client"),
        ({"loop_lag_max_ms": 900.0}, "client_standstill", "suspect", "client"),
        ({"loop_lag_max_ms": 900.0, "standstill_s": 4.0}, "client_standstill", "invalid", "client"),
        ({"start_late_ms": 300.0}, "late_start", "suspect", "client"),
        ({"start_late_ms": 4000.0}, "late_start", "invalid", "client"),
        ({"silence_max_s": 1.2, "silence_bound_s": 0.5}, "server_standstill", "suspect", "engine"),
        ({"silence_max_s": 4.0, "silence_bound_s": 0.5}, "server_standstill", "invalid", "engine"),
        ({"trace_rows": 100.0, "trace_rows_sent": 90.0}, "trace_left_out", "suspect", "engine"),
        ({"cpu_fraction": 0.9}, "client_cpu", "suspect", "client"),
        ({"cpu_fraction": 0.99}, "client_cpu", "invalid", "client"),
        ({"arrival": "poisson", "send_slip_p99_ms": 20.0}, "send_slip", "suspect", "client"),
        ({"arrival": "poisson", "send_slip_p99_ms": 200.0}, "send_slip", "invalid", "client"),
        ({"coalesced_fraction": 0.2}, "coalesced_reads", "suspect", "engine"),
        ({"requests_failed": 1.0}, "failed_requests", "suspect", "engine"),
        ({"requests_failed": 3.0}, "failed_requests", "invalid", "engine"),
        ({"requests_miscounted": 1.0}, "usage_mismatch", "invalid", "engine"),
        ({"server_output_tokens": 9900.0}, "output_count", "invalid", "engine"),
        ({"prefix_cache_hits": 500.0}, "prefix_cache_hits", "invalid", "engine"),
        ({"preemptions": 2.0}, "preempted", "suspect", "engine"),
        ({"telemetry_samples": 2.0}, "few_samples", "suspect", "engine"),
        ({"api_server_cpu_mean_cores": 0.97}, "api_server_cpu", "suspect", "api-server"),
        ({"tokens_per_chunk_mean": 4.0}, "tokens_per_chunk", "suspect", "api-server"),
        ({"gpu_throttled_fraction": 0.3}, "throttled", "suspect", "engine"),
        ({"gpu_sm_clock_mean_mhz": 1200.0}, "low_clock", "suspect", "engine"),
        ({"engine_telemetry_gap_s": 4.5}, "telemetry_gap", "suspect", "engine"),
        ({"gpu_telemetry_gap_s": 20.0}, "telemetry_gap", "suspect", "engine"),
        ({"duration_s": 1.0, "engine_telemetry_gap_s": 1.0}, "telemetry_gap", "suspect", "engine"),
        ({"prompt_length_error_fraction": 0.02}, "prompt_lengths", "suspect", "engine"),
        ({"prompt_length_error_fraction": 0.5}, "prompt_lengths", "invalid", "engine"),
        ({"surplus_tokens": 10.0}, "surplus_tokens", "suspect", "engine"),
        ({"surplus_tokens": 5000.0}, "surplus_tokens", "invalid", "engine"),
        ({"requests_client_limited": 3.0}, "client_limit", "suspect", "client"),
        ({"gpu_foreign_processes_max": 1.0}, "foreign_processes", "invalid", "engine"),
        ({"seats_taken_fraction": 0.7}, "empty_seats", "suspect", "engine"),
        ({"steady_share_fraction": 0.1}, "no_steady_part", "suspect", "engine"),
        ({"steady_mean_running_reqs": 40.0}, "starved_engine", "suspect", "api-server"),
        ({"ttft_mean_ms": 257.0}, "ttft_gap", "suspect", "api-server"),
        ({"e2e_mean_ms": 1200.0}, "e2e_gap", "suspect", "api-server"),
    ],
)
def test_each_doubt_is_found(changes: dict[str, Any], check: str, verdict: str, limit: str) -> None:
    found = judge(evidence(**changes))
    assert [one.check for one in found.reasons] == [check]
    assert (found.verdict, found.limit) == (verdict, limit)
    assert found.as_dict()["reasons"][0]["text"]


@pytest.mark.parametrize(
    ("error", "bias", "severities"),
    [(0.04, 0.04, []), (0.5, 0.5, ["suspect"]), (0.5, -0.5, ["invalid"]), (0.3, 0.0, ["suspect"])],
)
def test_a_chat_template_may_make_prompts_longer(error: float, bias: float, severities: list[str]) -> None:
    point = evidence(prompt_length_error_fraction=error, prompt_length_bias_fraction=bias)
    chat = {**point.record, "load": {**point.record["load"], "endpoint": "chat"}}
    found = judge(dataclasses.replace(point, record=chat)).reasons
    assert [one.severity for one in found] == severities


@pytest.mark.parametrize(
    ("emptied", "kind", "hits", "checks"),
    [
        (False, "shared-prefix", 2500.0, ["kept_prefix_cache"]),
        (False, "shared-prefix", 0.0, []),
        (False, "random", 2500.0, ["prefix_cache_hits", "kept_prefix_cache"]),
        (True, "shared-prefix", 2500.0, []),
        (None, "shared-prefix", 2500.0, []),
        (False, "shared-prefix", math.nan, ["kept_prefix_cache"]),
    ],
)
def test_a_cache_that_could_not_be_emptied_is_a_doubt_where_it_had_hits(
    emptied: bool | None, kind: str, hits: float, checks: list[str]
) -> None:
    point = dataclasses.replace(evidence(kind=kind, prefix_cache_hits=hits), prefix_cache_emptied=emptied)
    assert [one.check for one in judge(point).reasons] == checks


@pytest.mark.parametrize("name", sorted(CLEAN_SUMMARY))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_make_no_reason_that_cannot_be_written(name: str, value: float) -> None:
    json.dumps(judge(evidence(**{name: value})).as_dict(), allow_nan=False)


def test_a_counter_that_is_no_number_is_not_taken_for_none() -> None:
    point = evidence(num_preemptions_left_out=1.0)
    assert judge(point).verdict == "valid"
    del point.summary["preemptions"]  # type: ignore[attr-defined]
    (reason,) = judge(point).reasons
    assert (reason.check, reason.severity) == ("unread_counters", "suspect")


THREE = {"method": "ngram", "num_speculative_tokens": 3}


@pytest.mark.parametrize(
    ("flags", "tokens", "doubted"),
    [
        ({}, 4.0, True),
        ({"speculative-config": THREE}, 4.0, False),
        ({"speculative_config": json.dumps(THREE)}, 4.0, False),
        ({"speculative-config": THREE}, 12.0, True),
        ({"speculative-config": {"method": "suffix"}}, 9.0, False),
        ({"speculative-config": "broken {"}, 9.0, False),
        ({"speculative-config": None}, 4.0, True),
        ({"speculative-algorithm": "EAGLE", "speculative-num-draft-tokens": "8"}, 6.0, False),
        ({"speculative-algorithm": "EAGLE", "speculative-num-draft-tokens": 8}, 20.0, True),
        ({"stream-interval": 8}, 8.0, False),
        ({"stream-interval": 2}, 8.0, True),
        ({"stream-interval": 4, "speculative-config": THREE}, 16.0, False),
    ],
)
def test_chunks_of_several_tokens_are_no_doubt_where_they_are_asked_for(
    flags: dict[str, Any], tokens: float, doubted: bool
) -> None:
    point = evidence(tokens_per_chunk_mean=tokens)
    served = {"engine": {"adapter": "vllm"}, "model": {"name": "m"}, "server": {"args": flags}}
    found = judge(dataclasses.replace(point, record={**point.record, **served}))
    assert [one.check for one in found.reasons] == ["tokens_per_chunk"] * doubted
    assert found.limit == ("api-server" if doubted else "engine")


def test_shared_prefixes_may_hit_the_cache() -> None:
    assert judge(evidence(kind="shared-prefix", prefix_cache_hits=2500.0)).verdict == "valid"


def test_an_open_loop_without_a_queue_is_limited_by_its_rate() -> None:
    assert judge(evidence(arrival="poisson", mean_waiting_reqs=0.0)).limit == "offered-load"
    assert judge(evidence(arrival="poisson", mean_waiting_reqs=9.0)).limit == "engine"


def test_what_was_not_measured_is_no_doubt() -> None:
    point = Evidence(
        {"load": {"arrival": "closed"}, "dataset": {"kind": "random"}}, {"telemetry_samples": 20.0}, CLEAN_CLIENT
    )
    assert judge(point).verdict == "valid"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("stall:4:1.5", "server_standstill"),
        ("miscount:1", "usage_mismatch"),
        ("lost-count:0.1", "output_count"),
        ("prefix-hits:0.5", "prefix_cache_hits"),
        ("coalesce:4", "tokens_per_chunk"),
        ("delay-writes:0.2", "ttft_gap"),
        ("short-output:2", "failed_requests"),
        ("abort:2", "failed_requests"),
        ("longer-prompts:0.5", "prompt_lengths"),
        ("surplus-tokens:3", "surplus_tokens"),
        ("keep-cache:0.5", "kept_prefix_cache"),
        ("odd-metrics:1", "telemetry_gap"),
    ],
)
def test_a_session_finds_what_the_server_does_wrong(tmp_path: Any, fault: str, check: str) -> None:
    session = runner(tmp_path, batch_cap=2, server={"step-base-ms": 5.0, "fault": fault})
    session.run()
    point = session.points()[2]
    assert check in point["flags"]
    if point["status"] == "ok":
        assert point["verdict"]["verdict"] != "valid"


GPU = {"device": "cuda", "gpu_sm_clock_max_mhz": 1980}


@pytest.mark.parametrize(
    ("summary", "verdict", "checks"),
    [
        ({"gpu_foreign_processes_max": 0.0, "gpu_sm_clock_mean_mhz": 1970.0}, "valid", []),
        ({"gpu_foreign_processes_max": 1.0}, "invalid", ["foreign_processes"]),
        ({"gpu_throttled_fraction": 0.5}, "suspect", ["throttled"]),
        ({"sm_clock_mean_mhz": 1200.0, "gpu_sm_clock_mean_mhz": 1970.0}, "suspect", ["low_clock"]),
        ({"gpu_throttled_fraction": 0.0, "unclassified_fraction": 0.3}, "suspect", ["unclassified"]),
        ({"unclassified_fraction": 0.0}, None, ["not_judged"]),
    ],
)
def test_an_offline_point_is_judged_by_what_its_gpu_showed(
    summary: dict[str, float], verdict: str | None, checks: list[str]
) -> None:
    found = judge_batch(Evidence({}, summary, {}, GPU))
    assert (found.verdict, found.limit, [one.check for one in found.reasons]) == (verdict, None, checks)


def test_without_a_gpu_nothing_on_it_can_disturb() -> None:
    assert judge_batch(Evidence({}, {}, {}, {"device": "cpu"})).verdict == "valid"


def test_a_batch_between_two_samples_has_the_processes_of_the_nearest() -> None:
    sample = {"gpu_foreign_processes": 1.0, "gpu_throttled": 0.0, "gpu_sm_clock_mhz": 300.0}
    rows = [{"time_s": -3.0, **sample, "gpu_foreign_processes": 0.0}, {"time_s": 0.4, **sample}]
    assert machine_summary(rows, 0.1, profiled=False) == {"gpu_foreign_processes_max": 1.0}
    whole = machine_summary(rows, 0.5, profiled=False)
    assert whole == {
        "gpu_foreign_processes_max": 1.0,
        "gpu_throttled_fraction": 0.0,
        "gpu_sm_clock_mean_mhz": 300.0,
    }
    assert "gpu_sm_clock_mean_mhz" not in machine_summary(rows, 0.5, profiled=True)
    assert machine_summary([], 0.5, profiled=False) == {}


def test_recorded_offline_points_are_judged_by_what_was_recorded() -> None:
    recorded = Path(__file__).resolve().parents[2] / "recorded/h200"
    offline = [one for one in all_points(recorded) if one["record"].get("kind") == "offline"]
    for point in offline:
        again = judged_again(point)
        judged = "sm_clock_mean_mhz" in point["summary"]
        assert again["verdict"]["verdict"] == ("valid" if judged else None)
        assert again["flags"] == ([] if judged else ["not_judged"])
        assert {**again, "verdict": 0, "flags": 0} == {**point, "verdict": 0, "flags": 0}
    assert {judged_again(one)["verdict"]["verdict"] for one in offline} == {"valid", None}
