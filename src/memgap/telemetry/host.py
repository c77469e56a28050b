"""CPU time and resident memory of the servers' process trees, through psutil."""

import time
from collections.abc import Iterable, Sequence

import psutil

COLUMNS = ("cpu_util_fraction", "server_cpu_cores", "api_server_cpu_cores", "engine_cpu_cores", "rss_bytes")
API_SERVER = "APIServer"
"""Part of the process title of a vLLM API server that is not the root of its tree (--api-server-count above 1)."""


class HostSampler:
    """Samples the machine's CPU use and the servers' process trees.

    `cpu_util_fraction` is the share of all cores in use; `server_cpu_cores` the cores that the trees of `roots` used
    since the last sample, split into those of the API servers (the roots and their like) and of the engines (all
    others, absent where everything runs in the roots); `rss_bytes` their resident memory.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = list(roots)
        self._last_time_s = time.monotonic()
        self._last_cpu_s: dict[int, float] = {}
        self._is_api_server: dict[int, bool] = dict.fromkeys(roots, True)
        self.pids: set[int] = set(roots)
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """Return the columns of `COLUMNS`; without the tree's where it has ended."""
        sample = {"cpu_util_fraction": psutil.cpu_percent() / 100}
        now_s, cpu_s, rss_bytes = time.monotonic(), {}, 0
        for process in _trees(self._roots):
            try:
                times = process.cpu_times()
                if process.pid not in self._is_api_server:
                    self._is_api_server[process.pid] = API_SERVER in " ".join(process.cmdline())
                cpu_s[process.pid] = times.user + times.system
                rss_bytes += process.memory_info().rss
            except psutil.Error:
                continue
        if cpu_s:
            elapsed_s = max(now_s - self._last_time_s, 1e-9)
            used = {pid: max(value - self._last_cpu_s.get(pid, value), 0.0) for pid, value in cpu_s.items()}
            engine = [value for pid, value in used.items() if not self._is_api_server[pid]]
            sample["server_cpu_cores"] = sum(used.values()) / elapsed_s
            if engine:
                sample["engine_cpu_cores"] = sum(engine) / elapsed_s
                sample["api_server_cpu_cores"] = sample["server_cpu_cores"] - sample["engine_cpu_cores"]
            sample["rss_bytes"] = float(rss_bytes)
            self.pids = set(cpu_s)
        self._last_time_s, self._last_cpu_s = now_s, cpu_s
        return sample


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of the processes and all their descendants in bytes; what has ended counts nothing."""
    total = 0
    for process in _trees(pids):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def with_children(pids: Iterable[int]) -> set[int]:
    """Return the process ids with those of all their descendants; those of ended processes are left out."""
    return {process.pid for process in _trees(pids)}


def _trees(roots: Iterable[int]) -> list[psutil.Process]:
    processes = []
    for pid in roots:
        try:
            root = psutil.Process(pid)
            processes += [root, *root.children(recursive=True)]
        except psutil.Error:
            continue
    return processes
