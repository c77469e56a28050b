"""Watches whether the client itself keeps up while the load runs."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

_PERIOD_S = 0.01
STANDSTILL_S = 0.1
"""A loop that is late by more stood still."""


class LagProbe:
    """Samples how late the loop fires a timer, and the CPU time of this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lags_s: list[float] = []
        self._cpu_start_s = time.process_time()
        self._start_s = time.monotonic()
        self._due_s = self._start_s + _PERIOD_S
        self._handle = loop.call_later(_PERIOD_S, self._sample)

    def _sample(self) -> None:
        now_s = time.monotonic()
        self._lags_s.append(now_s - self._due_s)
        self._due_s = now_s + _PERIOD_S
        self._handle = self._loop.call_later(_PERIOD_S, self._sample)

    def stop(self) -> tuple[float, float, float, float]:
        """Return the lag's 99th percentile and maximum in ms, CPU time by elapsed time, and the seconds in which the
        loop stood still."""
        self._handle.cancel()
        # A loop that has been stuck until now shows here, not in a sample.
        self._lags_s.append(max(0.0, time.monotonic() - self._due_s))
        elapsed_s = max(time.monotonic() - self._start_s, 1e-9)
        p99_ms, max_ms = p99_and_max_ms(self._lags_s)
        stood_s = sum(lag_s for lag_s in self._lags_s if lag_s > STANDSTILL_S)
        return p99_ms, max_ms, (time.process_time() - self._cpu_start_s) / elapsed_s, stood_s


def p99_and_max_ms(values_s: Sequence[float]) -> tuple[float, float]:
    """Return the 99th percentile and the maximum of values in seconds, in ms; values below 0 count as 0."""
    values = np.maximum(np.asarray(values_s, dtype=np.float64), 0.0) * 1e3
    return float(np.percentile(values, 99)), float(values.max())
