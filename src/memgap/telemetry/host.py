"""CPU time and resident memory of a process tree, through psutil."""

import time

import psutil

COLUMNS = ("cpu_util_fraction", "server_cpu_cores", "rss_bytes")


class HostSampler:
    """Samples the machine's CPU use and one process tree.

    `cpu_util_fraction` is the share of all cores in use; `server_cpu_cores` the cores that the tree of `pid` used since
    the last sample; `rss_bytes` its resident memory.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last_time_s = time.monotonic()
        self._last_cpu_s: dict[int, float] = {}
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """Return the columns of `COLUMNS`; without the tree's where it has ended."""
        sample = {"cpu_util_fraction": psutil.cpu_percent() / 100}
        now_s, cpu_s, rss_bytes = time.monotonic(), {}, 0
        for process in self._tree():
            try:
                times = process.cpu_times()
                cpu_s[process.pid] = times.user + times.system
                rss_bytes += process.memory_info().rss
            except psutil.Error:
                continue
        if cpu_s:
            used_s = sum(value - self._last_cpu_s.get(pid, value) for pid, value in cpu_s.items())
            sample["server_cpu_cores"] = max(used_s, 0.0) / max(now_s - self._last_time_s, 1e-9)
            sample["rss_bytes"] = float(rss_bytes)
        self._last_time_s, self._last_cpu_s = now_s, cpu_s
        return sample

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []
