"""CPU time and resident memory of a process tree, through psutil."""

import time

import psutil

COLUMNS = ("cpu_util_fraction", "server_cpu_cores", "api_server_cpu_cores", "engine_cpu_cores", "rss_bytes")
API_SERVER = "APIServer"
"""Part of the process title of a vLLM API server that is not the root of its tree (--api-server-count above 1)."""


class HostSampler:
    """Samples the machine's CPU use and one process tree.

    `cpu_util_fraction` is the share of all cores in use; `server_cpu_cores` the cores that the tree of `pid` used since
    the last sample, split into those of its API servers (the root and its like) and of the engine (all others, absent
    where everything runs in the root); `rss_bytes` its resident memory.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last_time_s = time.monotonic()
        self._last_cpu_s: dict[int, float] = {}
        self._is_api_server: dict[int, bool] = {pid: True}
        self.pids: set[int] = {pid}
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """Return the columns of `COLUMNS`; without the tree's where it has ended."""
        sample = {"cpu_util_fraction": psutil.cpu_percent() / 100}
        now_s, cpu_s, rss_bytes = time.monotonic(), {}, 0
        for process in self._tree():
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

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []
