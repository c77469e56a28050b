"""Memory while a server starts: resident memory of its process tree and used GPU memory, on a fixed clock."""

import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType

from memgap.telemetry.host import resident_bytes
from memgap.telemetry.nvml import Nvml

COLUMNS = ("time_s", "rss_bytes", "gpu_mem_used_bytes", "allocated_bytes", "reserved_bytes")
"""`time_s` counts from the start; the last two are torch's allocator, where the engine tells them."""
INTERVAL_S = 0.25


class StartupSampler:
    """A thread that samples while the context is open.

    `pids` gives the servers' process ids, as far as they run, `gpus` the ids of their GPUs, None for those that this
    process may use.
    """

    def __init__(
        self,
        pids: Callable[[], Collection[int]],
        interval_s: float = INTERVAL_S,
        gpus: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self._pids = pids
        self._gpus = gpus
        self._interval_s = interval_s
        self._done = threading.Event()
        self.rows: list[dict[str, float]] = []

    def __enter__(self) -> "StartupSampler":
        self.rows = []
        self._done.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        began_s = time.monotonic()
        with Nvml(only=self._gpus()) as gpu:
            while True:
                row = {"time_s": time.monotonic() - began_s, "rss_bytes": float(resident_bytes(self._pids()))}
                row.update({name: one for name, one in gpu.sample().items() if name == "gpu_mem_used_bytes"})
                self.rows.append(row)
                if self._done.wait(self._interval_s):
                    return
