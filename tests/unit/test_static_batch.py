"""Static batches: their records, what their outcome is as requests and sums, and a worker's failures."""

from typing import Any

import pytest

from memgap.datasets.build import Prompt
from memgap.errors import UserError
from memgap.kinds.static import worker
from memgap.kinds.static.limits import TooLongError, check_positions
from memgap.kinds.static.measure import engine_facts
from memgap.kinds.static.point import is_static
from memgap.kinds.static.result import batch_rows, load_result, step_rows, worked
from memgap.load.latency import summarize
from memgap.study.study import Study
from memgap.tables.points import collect
from memgap.workflow import load_study
from tests.support.records import small_config

PROMPTS = [Prompt([11] * length, output) for length, output in ((4, 2), (2, 4), (3, 1))]


def hf_config(**changes: Any) -> dict[str, Any]:
    """Return a configuration of static batches beside a served engine."""
    config = small_config(server={})
    config["engines"]["hf"] = {"adapter": "hf", "version": "5.0.0"}
    fixed = config["sweeps"]["small"]["fixed"]
    config["sweeps"]["static"] = {"fixed": {**fixed, "engine": "hf", **changes}}
    return config


def hf_study(**changes: Any) -> Study:
    """Return the expanded configuration."""
    return load_study(hf_config(**changes))


def static_records(study: Study) -> list[dict[str, Any]]:
    """Return the records of static batches."""
    return [one.record for one in study.points.values() if is_static(one.record)]


def outcome() -> dict[str, Any]:
    """Return what a worker says of the prompts in batches of two: one batch of four steps, one of one step."""

    def batch(start_s: float, times_s: list[float], padded: int) -> dict[str, Any]:
        steps = [{"time_s": one, "kv_slots": padded + place, "kv_bytes": 8.0} for place, one in enumerate(times_s)]
        return {
            "start_monotonic_s": start_s,
            "end_monotonic_s": times_s[-1] + 0.5,
            "padded_prompt_tokens": padded,
            "generated_tokens": len(times_s),
            "steps": steps,
        }

    return {
        "status": "ok",
        "message": None,
        "start_unix_s": 1e9,
        "start_monotonic_s": 100.0,
        "end_monotonic_s": 107.0,
        "batches": [batch(100.0, [101.0, 102.0, 103.0, 104.0], 4), batch(104.5, [105.5], 3)],
    }


def test_a_record_says_how_the_batches_are_made_and_nothing_of_a_server() -> None:
    study = hf_study(batch_cap=[2, 4], server={"kv-cache": "batch"})
    records = static_records(study)
    assert [one["batch_cap"] for one in records] == [2, 4]
    assert records[0]["load"] == {"arrival": "static", "concurrency": 2, "requests": 6, "warmup_requests": 1}
    assert records[0]["server"]["args"] == {"kv-cache": "batch", "max-model-len": 2048}
    assert records[0]["engine"]["package"] == "transformers"
    (session,) = {one.session for one in study.points.values() if is_static(one.record)}
    assert session.startswith("tiny-opt-hf-static-")


def test_both_engines_read_the_same_prompts() -> None:
    config = hf_config(batch_cap=2, server={"max-model-len": 256})
    config["sweeps"]["small"]["fixed"] |= {"batch_cap": 2, "server": {"max-model-len": 256}}
    study = load_study(config)
    assert len({one.record["dataset"]["key"] for one in study.points.values()}) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"server": {"max-num-seqs": 4}}, "'max-num-seqs' is no option of static batches; known in `server` are attn-"),
        ({"server": {"kv-cache": "paged"}}, "server.kv-cache is 'paged'; use one of dynamic, batch, max-length"),
        ({"server": {"threads": "all"}}, "server.threads is 'all'; give a whole number"),
        ({"server": {"threads": True}}, "server.threads is True; give a whole number"),
        ({"server": {"threads": 0}}, "server.threads is 0; give at least 1"),
        ({"server": {"kv-cache": 3}}, "server.kv-cache is 3; give a name"),
        ({"load": {"requests": 4, "temperature": 0.7}}, "static batches decode greedily"),
        ({"load": {"requests": 4, "ignore_eos": False}}, "static batches decode greedily"),
        ({"load": {"requests": 99}}, "load asks for 99 requests, but datasets.short.requests is 32"),
    ],
)
def test_one_sentence_for_what_does_not_go(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        hf_study(**changes)
    assert "config: sweeps.static: " in str(refused.value)
    assert sentence in str(refused.value)


def test_everybody_is_answered_with_the_batch_and_counts_its_own_tokens() -> None:
    result = load_result(outcome(), PROMPTS, 2)
    first, second, third = result.results
    assert [one.status for one in result.results] == ["ok"] * 3
    assert (first.sent_s, first.first_token_s, first.end_s, first.output_tokens) == (0.0, 1.0, 4.5, 2)
    assert (second.last_token_s, second.output_tokens) == (4.5, 4)
    assert (third.sent_s, third.first_token_s, third.end_s) == (4.5, 5.5, 6.0)
    assert result.events.time_s.tolist() == [1, 2, 1, 2, 3, 4, 5.5]
    assert result.events.request.tolist() == [0, 0, 1, 1, 1, 1, 2]
    summary = summarize(result)
    assert summary["output_tokens"] == 7
    assert summary["output_throughput_tok_s"] == pytest.approx(1.0)
    assert summary["e2e_mean_ms"] == pytest.approx((4500 + 4500 + 1500) / 3)


def test_what_the_batches_took_beside_the_useful_tokens() -> None:
    found = worked(outcome(), PROMPTS, 2)
    assert (found["batches"], found["max_running_reqs"]) == (2, 2)
    assert found["padded_prompt_tokens"] == 2 * 4 + 3
    assert found["computed_output_tokens"] == 2 * 4 + 1
    # two run for two seconds, one for two more; then one for one second; over 4.5 s and 1.5 s
    assert found["mean_running_reqs"] == pytest.approx((2 * 2 + 2 + 1) / 6)
    assert "allocated_peak_bytes" not in found
    rows = batch_rows(outcome(), PROMPTS, 2)
    assert [(row["requests"], row["prompt_tokens"], row["output_tokens"]) for row in rows] == [(2, 6, 6), (1, 3, 1)]
    assert [row["time_s"] for row in step_rows(outcome())] == [1, 2, 3, 4, 5.5]


def test_a_batch_that_made_too_few_tokens_is_short() -> None:
    broken = outcome()
    broken["batches"][0]["generated_tokens"] = 3
    statuses = [one.status for one in load_result(broken, PROMPTS, 2).results]
    assert statuses == ["ok", "short", "ok"]


class FailingModel:
    """Fails in its second batch."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def batch(self, prompts: list[list[int]], output_tokens: int) -> dict[str, Any]:
        """Return the first batch's length and raise at the second."""
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return {"output_tokens": output_tokens, "rows": len(prompts)}

    def free(self) -> None:
        """Have nothing to free."""


RUN = {"key": "k", "warmup": [], "batches": [[[[1, 2], 3], [[1], 5]], [[[1], 1]]]}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_a_result_with_what_was_done_before(error: Exception) -> None:
    found = worker.measure(FailingModel(error), RUN)
    assert found["status"] == "oom"
    assert "\n" not in found["message"]
    assert found["batches"] == [{"output_tokens": 5, "rows": 2}]
    assert found["end_monotonic_s"] >= found["start_monotonic_s"]


def test_a_batch_that_is_too_long_is_a_result_and_the_next_point_may_run() -> None:
    found = worker.measure(FailingModel(TooLongError("needs 99 positions, and the model has 64")), RUN)
    assert (found["status"], found["message"]) == ("bad_config", "needs 99 positions, and the model has 64")
    assert load_result({**found, "batches": []}, PROMPTS, 2).duration_s >= 0


def test_a_batch_needs_the_longest_prompt_and_the_longest_output() -> None:
    check_positions(40, 25, 64)
    check_positions(4000, 4000, None)
    with pytest.raises(TooLongError, match=r"a prompt of 40 tokens and an output of 26 needs 65 positions, .* has 64"):
        check_positions(40, 26, 64)


def test_another_error_ends_the_worker() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        worker.measure(FailingModel(RuntimeError("a bug")), RUN)


def test_the_start_lasts_until_the_model_is_loaded() -> None:
    assert engine_facts({"version": "5.0", "loaded_monotonic_s": 12.5}, "", 10.0) == {"version": "5.0", "start_s": 2.5}


def test_a_sweeps_own_table_has_its_points_too(tmp_path: Any) -> None:
    study = hf_study()
    table = collect(study.group_plan("static"), tmp_path / "points")
    assert list(table["arrival"]) == ["static"] * 3
    assert set(table["status"]) == {"missing"}
