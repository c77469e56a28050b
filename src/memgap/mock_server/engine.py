"""Runs the scheduler in time: one step after the other for as long as there is work."""

import asyncio
import os
import sys
import time
from collections.abc import Callable

from memgap.mock_server.latencies import Latencies
from memgap.mock_server.options import Options
from memgap.mock_server.trace import Trace
from memgap.scheduling.scheduler import Batch, Scheduler, Sequence

_CATCH_UP_S = 0.02
"""A step may start this much earlier than now, so that late timers do not slow the engine down."""
_TIMER_S = 0.0012
"""What a loop's timer may be late by; precise timing spins through the rest of the wait."""


def step_s(options: Options, batch: Batch) -> float:
    """Return how long a step takes, in seconds."""
    per_sequence_ms = options.step_per_seq_ms * (batch.decodes + len(batch.chunks))
    return (options.step_base_ms + per_sequence_ms) / 1e3 + options.prefill_us_per_token / 1e6 * batch.chunk_tokens


class Engine:
    """A scheduler on the clock of an event loop."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.scheduler = Scheduler(
            max_num_seqs=options.max_num_seqs,
            num_blocks=options.num_blocks,
            block_size=options.block_size,
        )
        self._options = options
        self.latencies = Latencies()
        self.trace = Trace(options.profile_folder)
        self._faults = options.faults
        self._precise = options.precise_timing
        self._loop = loop
        self._busy = False
        self._stalled = False
        self._accepted = 0
        self._completed = 0
        self._deadline_s = 0.0

    def submit(self, sequence: Sequence) -> None:
        """Queue a request; an idle engine starts a step in the next turn of the loop."""
        self._accepted += 1
        self.scheduler.add(sequence)
        if not self._busy:
            self._busy = True
            self._deadline_s = time.monotonic()
            self._loop.call_soon(self._begin)

    def completed(self, reason: str) -> None:
        """Count a request that ended by itself."""
        self.scheduler.counters.finished[reason] += 1
        self._completed += 1

    def _begin(self) -> None:
        faults = self._faults
        if not self._stalled and 0 < faults.stall_after_requests <= self._accepted:
            self._stalled = True
            self._deadline_s = time.monotonic() + faults.stall_s
            self._loop.call_later(faults.stall_s, self._begin)
            return
        batch = self.scheduler.begin_step()
        if batch is None:
            self._busy = False
            return
        duration_s = step_s(self._options, batch)
        if faults.oom_at_running and len(self.scheduler.running) > faults.oom_at_running:
            print("torch.OutOfMemoryError: CUDA out of memory.", file=sys.stderr, flush=True)
            os._exit(1)
        self.trace.step(time.time_ns(), duration_s)
        self._deadline_s = max(self._deadline_s, time.monotonic() - _CATCH_UP_S) + duration_s
        self._wait(self._finish)

    def _wait(self, then: Callable[[], None]) -> None:
        """Call `then` at the deadline; within a timer's error of it, or exactly when timing is precise."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            self._loop.call_soon(then)
        elif not self._precise:
            self._loop.call_later(left_s, then)
        elif left_s > 2 * _TIMER_S:
            self._loop.call_later(left_s - _TIMER_S, self._wait, then)
        else:
            self._loop.call_soon(self._spin, then)

    def _spin(self, then: Callable[[], None]) -> None:
        if time.monotonic() >= self._deadline_s:
            then()
        else:
            self._loop.call_soon(self._spin, then)

    def _finish(self) -> None:
        self.scheduler.finish_step()
        if 0 < self._faults.die_after_requests <= self._completed:
            print("ERROR engine core died unexpectedly", file=sys.stderr, flush=True)
            os._exit(1)
        self._begin()
