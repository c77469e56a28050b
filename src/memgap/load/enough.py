"""When a closed loop that is bounded in seconds has sent enough: by time, or by the interval of its throughput."""

import asyncio
import time
from collections.abc import Callable

import numpy as np

from memgap.load.records import LoadPlan, StoppedBy
from memgap.stats.series import interval_so_far

TICK_S = 0.1
LOOK_EVERY_S = 1.0
"""The interval is looked at so often; each look costs about a millisecond."""
LEAST_SECONDS = 10.0
"""Without `least_seconds` the interval counts from then on, or from half of `seconds` where that is less."""


class Enough:
    """Says when no further request is to be sent.

    `reads` gives how many reads all requests have had until now, which stand for tokens: counting tokens themselves
    would take time from the load. The interval is that of `memgap.stats.series.interval_so_far`.
    """

    def __init__(self, plan: LoadPlan, reads: Callable[[], int]) -> None:
        self.by: StoppedBy | None = None
        self._plan = plan
        self._reads = reads
        self._ended = 0
        self._start_s = time.monotonic()
        self._counts: list[int] = []
        self._turnover_tick: int | None = None
        least_s = plan.least_seconds
        self._least_s = min(LEAST_SECONDS, (plan.seconds or 0.0) / 2) if least_s is None else least_s

    def request_ended(self) -> None:
        """Count a request that has ended, however."""
        self._ended += 1
        if self._turnover_tick is None and self._ended >= (self._plan.concurrency or 1):
            self._turnover_tick = len(self._counts)

    def now(self) -> bool:
        """Whether no further request is to be sent."""
        seconds = self._plan.seconds
        if self.by is None and seconds is not None and time.monotonic() - self._start_s >= seconds and self._may_stop():
            self.by = "seconds"
        return self.by is not None

    async def watch(self) -> None:
        """Count reads in equal slices of time, and stop by their interval; runs beside the load until cancelled."""
        self._start_s = time.monotonic()
        before, look_s = self._reads(), self._start_s + self._least_s
        wanted = self._plan.interval_fraction
        while self.by is None and wanted is not None:
            due_s = self._start_s + (len(self._counts) + 1) * TICK_S
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            reads = self._reads()
            self._counts.append(reads - before)
            before = reads
            if time.monotonic() >= look_s and self._may_stop() and self._turnover_tick is not None:
                look_s = time.monotonic() + LOOK_EVERY_S
                if interval_so_far(np.asarray(self._counts, dtype=np.float64), self._turnover_tick) <= wanted:
                    self.by = "interval"

    def _may_stop(self) -> bool:
        return self._ended >= (self._plan.min_requests or 1)
