"""Times of an engine's steps and of their parts, collected by hooks that an engine calls."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

SEGMENTS = ("schedule_s", "prepare_s", "gpu_s", "fetch_s", "update_s", "detokenize_s", "output_s")


@dataclass
class Step:
    """One finished step. `wall_s` reaches from the step before it (or the batch's begin) to the return of the engine.

    The parts: `schedule_s` the scheduler; `prepare_s` from there to the forward pass's first launch; `gpu_s` from that
    launch to the sampled tokens on the GPU; `fetch_s` until the host has them; `update_s` the scheduler taking them;
    `detokenize_s`; `output_s` the rest of the output handling. With asynchronous scheduling the host's parts overlap
    with the GPU's, so their sum is no wall time there.
    """

    phase: str
    step: int
    start_s: float
    wall_s: float = 0.0
    tokens: int = 0
    prefill_tokens: int = 0
    running: int = 0
    waiting: int = 0
    kv_cache_usage_fraction: float = 0.0
    schedule_s: float = 0.0
    prepare_s: float = 0.0
    gpu_s: float = 0.0
    fetch_s: float = 0.0
    update_s: float = 0.0
    detokenize_s: float = 0.0
    output_s: float = 0.0

    @property
    def rest_s(self) -> float:
        """Wall time that no part accounts for."""
        return self.wall_s - sum(float(getattr(self, name)) for name in SEGMENTS)


COLUMNS = (*(one.name for one in fields(Step)), "rest_s")


def row(step: Step) -> dict[str, float | int | str]:
    """Return a step as a row with the columns of `COLUMNS`."""
    return {**asdict(step), "rest_s": step.rest_s}


@dataclass
class _Open:
    """A step from its scheduling to its output; `scheduled_s` is the end of its scheduling."""

    step: Step
    scheduled_s: float
    forward_began_s: float = 0.0
    gpu_time: Callable[[], float] | None = None


class StepRecorder:
    """Turns the hooks of an engine in process into finished steps, in order; scheduling may run ahead of the outputs.

    `clock` gives seconds. Steps without any token are no steps and are dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._flying: deque[_Open] = deque()
        self._updated: list[_Open] = []
        self._detokenize_s = 0.0
        self._last_s = 0.0
        self._begin_s = 0.0
        self._numbers: dict[str, int] = {}
        self.finished: list[Step] = []

    def begin(self) -> None:
        """Forget everything; the next step's wall time starts now.

        A step that still flies, as the last one does with asynchronous scheduling, ends as one without tokens.
        """
        for flying in self._flying:
            flying.step.tokens = 0
        self._updated.clear()
        self._numbers.clear()
        self.finished = []
        self._detokenize_s = 0.0
        self._begin_s = self._last_s = self._clock()

    def scheduled(self, phase: str, tokens: int, prompts: int, running: int, waiting: int, seconds: float) -> Step:
        """A step was scheduled: its phase, tokens (of them `prompts` of prompts), requests, and what it took."""
        number = self._numbers.get(phase, 0)
        self._numbers[phase] = number + (1 if tokens else 0)
        step = Step(phase, number, 0.0, tokens=tokens, prefill_tokens=prompts, running=running, waiting=waiting)
        step.schedule_s = seconds
        self._flying.append(_Open(step, self._clock()))
        return step

    def forward_begins(self) -> None:
        """Its inputs are ready and the forward pass is launched."""
        if self._flying:
            self._flying[-1].forward_began_s = self._clock()

    def sampled(self, gpu_time: Callable[[], float] | None) -> None:
        """Its sampling is launched; `gpu_time` says later how long the GPU took (None: the host's clock is taken)."""
        if self._flying:
            self._flying[-1].gpu_time = gpu_time

    def output_begins(self) -> None:
        """The oldest step's tokens are on the host."""
        if not self._flying:
            return
        flying = self._flying.popleft()
        now_s, step = self._clock(), flying.step
        began_s = flying.forward_began_s or flying.scheduled_s
        step.prepare_s = max(began_s - flying.scheduled_s, 0.0)
        until_s = now_s - began_s
        step.gpu_s = flying.gpu_time() if flying.gpu_time is not None else until_s
        step.fetch_s = until_s - step.gpu_s
        self._updated.append(flying)

    def output_ends(self, seconds: float, kv_usage: float) -> None:
        """The scheduler has taken the tokens."""
        if self._updated:
            self._updated[-1].step.update_s = seconds
            self._updated[-1].step.kv_cache_usage_fraction = kv_usage

    def detokenized(self, seconds: float) -> None:
        """One request's token was turned into text."""
        self._detokenize_s += seconds

    def processed(self, seconds: float) -> None:
        """The outputs of a step went through the output processor, detokenizing included."""
        if self._updated:
            step = self._updated[-1].step
            step.detokenize_s, step.output_s = self._detokenize_s, max(seconds - self._detokenize_s, 0.0)
        self._detokenize_s = 0.0

    def returned(self) -> list[Step]:
        """The engine's step returned; returns the steps that ended with it, none or one."""
        now_s = self._clock()
        ended = [one.step for one in self._updated if one.step.tokens]
        for step in ended:
            step.start_s = self._last_s - self._begin_s
            step.wall_s = now_s - self._last_s
        if ended:
            self._last_s = now_s
        self._updated.clear()
        self.finished += ended
        return ended
