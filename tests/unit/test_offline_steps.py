"""Steps and their parts after an engine's hooks, and the hold that keeps the phases apart."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from memgap.kinds.offline.phases import DECODE, PREFILL, DecodeHold, KvExhaustedError, phase_of, prefill_tokens
from memgap.kinds.offline.steps import COLUMNS, SEGMENTS, Step, StepRecorder, row


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


class Engine:
    """Calls a recorder's hooks as an engine does; each part takes the time that its argument says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.recorder = StepRecorder(self.clock)
        self.recorder.begin()

    def launch(self, phase: str = DECODE, tokens: int = 2, gpu: Callable[[], float] | None = None) -> None:
        """Schedule (1 s), prepare (2 s) and launch (1 s) a step."""
        self.clock.wait(1.0)
        prompts = tokens if phase == PREFILL else 0
        self.recorder.scheduled(phase, tokens, prompts, running=tokens, waiting=0, seconds=1.0)
        self.clock.wait(2.0)
        self.recorder.forward_begins()
        self.clock.wait(1.0)
        self.recorder.sampled(gpu)

    def collect(self, usage: float = 0.5) -> list[Step]:
        """Wait 4 s for the oldest step's tokens, hand them out (update 1 s, detokenize 0.5 s, output 0.25 s), and
        0.125 s of something else.
        """
        self.clock.wait(4.0)
        self.recorder.output_begins()
        self.clock.wait(1.0)
        self.recorder.output_ends(1.0, usage)
        for _ in range(2):
            self.clock.wait(0.25)
            self.recorder.detokenized(0.25)
        self.clock.wait(0.25)
        self.recorder.processed(0.75)
        self.clock.wait(0.125)
        return self.recorder.returned()


def test_a_synchronous_step_is_its_parts_and_the_rest() -> None:
    engine = Engine()
    engine.launch(PREFILL, tokens=3)
    (step,) = engine.collect(usage=0.25)
    assert (step.phase, step.step, step.tokens, step.prefill_tokens) == (PREFILL, 0, 3, 3)
    assert step.kv_cache_usage_fraction == 0.25
    parts = {"schedule_s": 1.0, "prepare_s": 2.0, "gpu_s": 5.0, "fetch_s": 0.0, "update_s": 1.0}
    parts |= {"detokenize_s": 0.5, "output_s": 0.25}
    assert {name: getattr(step, name) for name in SEGMENTS} == pytest.approx(parts)
    assert step.wall_s == pytest.approx(9.875)
    assert step.rest_s == pytest.approx(0.125)
    assert list(row(step)) == list(COLUMNS)
    assert row(step)["rest_s"] == pytest.approx(0.125)


def test_the_gpus_own_clock_goes_before_the_hosts() -> None:
    engine = Engine()
    engine.launch(gpu=lambda: 3.5)
    (step,) = engine.collect()
    assert (step.gpu_s, step.fetch_s) == pytest.approx((3.5, 1.5))


def test_steps_are_counted_in_each_phase_and_their_walls_add_up() -> None:
    engine = Engine()
    for phase in (PREFILL, PREFILL, DECODE, DECODE):
        engine.launch(phase)
        engine.collect()
        engine.clock.wait(0.5)
    steps = engine.recorder.finished
    assert [(one.phase, one.step) for one in steps] == [(PREFILL, 0), (PREFILL, 1), (DECODE, 0), (DECODE, 1)]
    assert sum(one.wall_s for one in steps) == pytest.approx(engine.clock.now_s - 0.5 - 100.0)
    assert [one.start_s for one in steps[1:]] == pytest.approx([steps[0].wall_s, *(2 * 10.375 - 0.5, 3 * 10.375 - 0.5)])


def test_scheduling_ahead_keeps_outputs_with_their_steps() -> None:
    engine = Engine()
    engine.launch(PREFILL, tokens=7)
    engine.recorder.returned()
    engine.launch(DECODE, tokens=1)
    (first,) = engine.collect(usage=0.1)
    engine.launch(DECODE, tokens=1)
    (second,) = engine.collect(usage=0.2)
    assert (first.phase, first.tokens, first.kv_cache_usage_fraction) == (PREFILL, 7, 0.1)
    assert (second.phase, second.step, second.kv_cache_usage_fraction) == (DECODE, 0, 0.2)
    assert first.prepare_s == second.prepare_s == pytest.approx(2.0)
    assert second.rest_s < 0, "the host's parts overlap with the GPU's, so the sum is no wall time"
    (third,) = engine.collect()
    assert third.step == 1
    assert sum(one.wall_s for one in (first, second, third)) == pytest.approx(engine.clock.now_s - 100.0)


def test_steps_without_tokens_are_dropped_and_their_time_goes_to_the_next() -> None:
    engine = Engine()
    engine.launch(tokens=0)
    assert engine.collect() == []
    engine.launch(tokens=1)
    (step,) = engine.collect()
    assert step.step == 0
    assert step.wall_s == pytest.approx(2 * 9.875)
    assert engine.recorder.finished == [step]


def test_a_step_left_in_flight_by_the_batch_before_takes_no_output_of_this_one() -> None:
    engine = Engine()
    engine.launch(DECODE, tokens=5)
    engine.recorder.begin()
    engine.launch(PREFILL, tokens=3)
    assert engine.collect(usage=0.9) == []
    (step,) = engine.collect(usage=0.3)
    assert (step.phase, step.tokens, step.kv_cache_usage_fraction) == (PREFILL, 3, 0.3)


def test_hooks_without_any_step_do_nothing() -> None:
    engine = Engine()
    for hook in (engine.recorder.forward_begins, engine.recorder.output_begins):
        hook()
    engine.recorder.sampled(None)
    engine.recorder.output_ends(1.0, 0.5)
    engine.recorder.processed(1.0)
    assert engine.recorder.returned() == []


@dataclass
class Request:
    """A request of the scheduler."""

    req_id: str
    num_prompt_tokens: int
    num_computed_tokens: int = 0
    num_output_tokens: int = 0


@dataclass
class Cached:
    """The requests of a step that ran before."""

    req_ids: list[str] = field(default_factory=list)
    num_output_tokens: list[int] = field(default_factory=list)


@dataclass
class Output:
    """A step's schedule."""

    num_scheduled_tokens: dict[str, int] = field(default_factory=dict)
    scheduled_new_reqs: list[Request] = field(default_factory=list)
    scheduled_cached_reqs: Cached = field(default_factory=Cached)

    @property
    def total_num_scheduled_tokens(self) -> int:
        """All tokens of the step."""
        return sum(self.num_scheduled_tokens.values())


class Scheduler:
    """Schedules running requests first, then waiting ones, at most `budget` tokens a step and `slots` requests."""

    def __init__(self, requests: list[Request], budget: int = 8, slots: int = 8) -> None:
        self.waiting = requests
        self.running: list[Request] = []
        self._budget, self._slots = budget, slots
        self._in_use = 0
        self.preempts = False

    def schedule(self, *_: Any) -> Output:
        """Return the next step's schedule."""
        output, left = Output(), self._budget
        if self.preempts:
            self.waiting.insert(0, self.running.pop())
        for one in self.running:
            tokens = min(left, max(one.num_prompt_tokens - one.num_computed_tokens, 1))
            if tokens:
                output.num_scheduled_tokens[one.req_id] = tokens
                output.scheduled_cached_reqs.req_ids.append(one.req_id)
                output.scheduled_cached_reqs.num_output_tokens.append(one.num_output_tokens)
                left -= tokens
        while self.waiting and left and self._in_use < self._slots:
            one = self.waiting.pop(0)
            output.scheduled_new_reqs.append(one)
            output.num_scheduled_tokens[one.req_id] = tokens = min(left, one.num_prompt_tokens)
            left -= tokens
            self.running.append(one)
            self._in_use += 1
        for one in self.running:
            one.num_computed_tokens += output.num_scheduled_tokens.get(one.req_id, 0)
            if one.num_computed_tokens >= one.num_prompt_tokens and one.req_id in output.num_scheduled_tokens:
                one.num_output_tokens += 1
        return output


def requests(number: int, prompt: int = 6) -> list[Request]:
    """Return waiting requests."""
    return [Request(str(one), prompt) for one in range(number)]


def test_tokens_of_prompts_are_those_of_new_and_unfinished_requests() -> None:
    output = Output(
        {"new": 5, "in its prompt": 3, "decodes": 1}, [Request("new", 9)], Cached(["in its prompt", "decodes"], [0, 4])
    )
    assert prefill_tokens(output) == 8
    assert phase_of(output) == PREFILL
    assert phase_of(Output({"decodes": 1}, [], Cached(["decodes"], [1]))) == DECODE
    assert phase_of(Output()) == DECODE


def test_without_the_hold_the_phases_mix() -> None:
    scheduler = Scheduler(requests(3))
    scheduler.schedule()
    assert 0 < prefill_tokens(output := scheduler.schedule()) < output.total_num_scheduled_tokens


def test_no_request_decodes_before_all_prompts_are_computed() -> None:
    scheduler = Scheduler(requests(4))
    DecodeHold(scheduler)
    outputs = [scheduler.schedule() for _ in range(6)]
    assert [phase_of(one) for one in outputs] == [PREFILL] * 3 + [DECODE] * 3
    assert [prefill_tokens(one) for one in outputs] == [8, 8, 8, 0, 0, 0]
    assert [one.total_num_scheduled_tokens for one in outputs[3:]] == [4, 4, 4]
    assert [one.req_id for one in scheduler.running] == ["0", "1", "2", "3"]


def test_a_hold_that_is_off_changes_nothing() -> None:
    scheduler = Scheduler(requests(4))
    DecodeHold(scheduler).enabled = False
    scheduler.schedule()
    assert 0 < prefill_tokens(output := scheduler.schedule()) < output.total_num_scheduled_tokens


def test_prompts_that_do_not_fit_end_the_batch_after_a_few_empty_steps() -> None:
    scheduler = Scheduler(requests(5), slots=3)
    DecodeHold(scheduler)
    empty = 0
    with pytest.raises(KvExhaustedError, match="holds the prompts of 3 of 5 requests"):
        for _ in range(10):
            empty += not scheduler.schedule().total_num_scheduled_tokens
    assert empty == 2


def test_a_preemption_in_decode_ends_the_batch() -> None:
    scheduler = Scheduler(requests(2), slots=2)
    DecodeHold(scheduler)
    while phase_of(scheduler.schedule()) == PREFILL:
        pass
    scheduler.preempts = True
    with pytest.raises(KvExhaustedError, match="full in decode: 1 of 2 requests were preempted"):
        scheduler.schedule()


def test_an_error_of_the_scheduler_loses_no_request() -> None:
    scheduler = Scheduler(requests(4))
    hold = DecodeHold(scheduler)
    scheduler.schedule()

    def broken() -> Output:
        raise ValueError("broken")

    hold._schedule = broken
    with pytest.raises(ValueError, match="broken"):
        scheduler.schedule()
    assert [one.req_id for one in scheduler.running] == ["0", "1"]
