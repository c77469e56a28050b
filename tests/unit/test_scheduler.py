"""Continuous batching of the mock engine and the twin, without clock and network."""

import json
from pathlib import Path

import pandas as pd
import pytest

from memgap.errors import UserError
from memgap.mock_server.engine import step_s
from memgap.mock_server.faults import parse_faults
from memgap.mock_server.options import parse_options
from memgap.scheduling.scheduler import Scheduler, Sequence
from tests.support.scheduling import decisions, recorded


class Tokens:
    """Counts what a sequence gets."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.ended = False

    def token(self, index: int, last: bool) -> None:
        self.indices.append(index)
        self.ended = last


def _scheduler(max_num_seqs: int = 4, num_blocks: int = 100) -> Scheduler:
    return Scheduler(max_num_seqs=max_num_seqs, num_blocks=num_blocks, block_size=16)


def _add(scheduler: Scheduler, prompt: int, output: int) -> tuple[Sequence, Tokens]:
    sink = Tokens()
    sequence = Sequence(prompt, output, sink)
    scheduler.add(sequence)
    return sequence, sink


def _run(scheduler: Scheduler) -> list[float]:
    options = parse_options(
        [
            "--port",
            "1",
            "--model",
            "m",
            "--step-base-ms",
            "10",
            "--step-per-seq-ms",
            "1",
            "--prefill-us-per-token",
            "100",
        ]
    )
    durations = []
    while (batch := scheduler.begin_step()) is not None:
        durations.append(step_s(options, batch))
        scheduler.finish_step()
        used = sum(sequence.blocks for sequence in scheduler.decoding())
        assert scheduler.free_blocks == scheduler.num_blocks - used
        assert len(scheduler.running) <= scheduler.max_num_seqs
    return durations


def test_step_time_counts_sequences_and_new_prompt_tokens() -> None:
    scheduler = _scheduler()
    _add(scheduler, 100, 3)
    _add(scheduler, 50, 2)
    assert _run(scheduler) == pytest.approx([0.010 + 0.002 + 0.015, 0.010 + 0.002, 0.010 + 0.001])


def test_cap_on_sequences_makes_later_ones_wait_in_order() -> None:
    scheduler = _scheduler(max_num_seqs=2)
    sinks = [_add(scheduler, 16, 2)[1] for _ in range(5)]
    scheduler.begin_step()
    assert (len(scheduler.running), len(scheduler.waiting)) == (2, 3)
    scheduler.finish_step()
    _run(scheduler)
    assert all(sink.indices == [0, 1] and sink.ended for sink in sinks)
    assert scheduler.counters.generation_tokens == 10
    assert scheduler.counters.prompt_tokens == 80


def test_blocks_cover_the_tokens_known_before_a_step() -> None:
    scheduler = _scheduler()
    sequence, _ = _add(scheduler, 16, 18)
    held = []
    while scheduler.begin_step() is not None:
        scheduler.known_tokens(sequence)
        held.append(sequence.blocks)
        scheduler.finish_step()
    assert held == [1] + [2] * 16 + [3]
    assert scheduler.kv_usage == 0


def test_newest_sequence_is_preempted_and_still_gets_each_token_once() -> None:
    scheduler = _scheduler(num_blocks=4)
    old, old_sink = _add(scheduler, 32, 30)
    new, new_sink = _add(scheduler, 32, 30)
    scheduler.begin_step()
    assert scheduler.running == [old, new]
    scheduler.finish_step()
    scheduler.begin_step()
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new]
    assert scheduler.counters.preemptions == 1
    scheduler.finish_step()
    _run(scheduler)
    assert old_sink.indices == new_sink.indices == list(range(30))
    assert scheduler.free_blocks == 4


def test_abort_frees_blocks_and_is_counted_once() -> None:
    scheduler = _scheduler(max_num_seqs=1)
    running, sink = _add(scheduler, 40, 10)
    waiting, _ = _add(scheduler, 40, 10)
    scheduler.begin_step()
    scheduler.abort(running)
    scheduler.abort(waiting)
    scheduler.abort(waiting)
    scheduler.finish_step()
    assert sink.indices == []
    assert scheduler.counters.finished["abort"] == 2
    assert scheduler.begin_step() is None
    assert scheduler.kv_usage == 0


def test_faults_are_read() -> None:
    faults = parse_faults(["stall:3:0.5", "coalesce:4", "hang-on-term"])
    assert (faults.stall_after_requests, faults.stall_s) == (3, 0.5)
    assert (faults.coalesce, faults.hang_on_term) == (4, True)


@pytest.mark.parametrize("text", ["explode", "coalesce", "coalesce:x", "coalesce:0", "stall:1", "fail-start:1"])
def test_bad_faults_are_named(text: str) -> None:
    with pytest.raises(UserError, match=f"--fault {text}"):
        parse_faults([text])


def test_unknown_flag_is_an_error() -> None:
    with pytest.raises(SystemExit):
        parse_options(["--port", "1", "--model", "m", "--swap-space", "5"])


def test_bad_value_is_an_error() -> None:
    with pytest.raises(UserError, match="max-num-seqs"):
        parse_options(["--port", "1", "--model", "m", "--max-num-seqs", "0"])


@pytest.mark.parametrize("number", range(8))
def test_every_step_is_that_of_vllms_own_scheduler(number: int) -> None:
    """Its decisions were recorded: chunked prompts, preemption, asynchronous scheduling or not."""
    known = recorded()
    case = known["cases"][number]
    found, scheduler = decisions(case)
    assert found == known["steps"][number]
    assert scheduler.free_blocks == case["num_blocks"]


def test_recorded_cases_preempt_and_cut_prompts() -> None:
    ends = [(case, *decisions(case)) for case in recorded()["cases"]]
    assert {case["asynchronous"] for case, _, scheduler in ends if scheduler.counters.preemptions} == {True, False}
    assert any(
        1 < tokens < case["requests"][int(n)][0] for case, steps, _ in ends for s in steps for n, tokens in s.items()
    )


@pytest.mark.parametrize("session", ["opt-1.3b-vllm-offline-03217506", "llama-2-7b-vllm-offline-6b3f32e2"])
def test_prefill_steps_of_a_recorded_run_are_ours(session: str) -> None:
    """The engine's own step log: prompts of a large batch, computed before any of them decodes."""
    folder = Path(__file__).parents[2] / "recorded/h200"
    points = [json.loads(line) for line in (folder / f"{session}.jsonl").read_text().splitlines()]
    steps = pd.read_csv(folder / f"{session}.steps.csv.gz")
    point = max((one for one in points if one["status"] == "ok"), key=lambda one: one["record"]["batch"])
    mine = steps[steps["key"] == point["key"]]
    facts, record = point["engine"], point["record"]
    scheduler = Scheduler(
        max_num_seqs=facts["max_num_seqs"],
        num_blocks=facts["num_gpu_blocks"] - 1,
        block_size=facts["kv_block_tokens"],
        max_batched_tokens=facts["max_num_batched_tokens"],
    )
    for _ in range(record["batch"]):
        scheduler.add(Sequence(record["prompt_tokens"], 1))
    held = 0
    for row in mine[mine["phase"] == "prefill"].itertuples():
        batch = scheduler.begin_step()
        assert batch is not None
        assert (batch.chunk_tokens, len(batch.chunks), len(scheduler.waiting)) == (row.tokens, row.running, row.waiting)
        used = scheduler.num_blocks - scheduler.free_blocks + held
        assert used / scheduler.num_blocks == pytest.approx(row.kv_cache_usage_fraction, rel=1e-6)
        scheduler.finish_step()
        held = used - sum(one.blocks for one in scheduler.running)
    first = mine[mine["phase"] == "decode"].iloc[0]
    assert first["tokens"] == record["batch"] and not scheduler.waiting and scheduler.begin_step() is None
