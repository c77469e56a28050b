"""A process of its own that samples on a fixed clock, so that sampling never delays the load generator.

`python -m memgap.telemetry.sampler --url URL --adapter vllm --pid PID --interval-s 0.25 --out FILE` writes one CSV row
a tick until its standard input is closed; with several servers, one --url and one --pid each. A line on its input with
{"urls", "pids", "own"} says what is sampled from then on, as servers that start again are other processes. Times are
CLOCK_MONOTONIC, which all processes of a machine share. A tick that is late is not made up for: the next one comes when
it is due.
"""

import argparse
import contextlib
import csv
import http.client
import json
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TextIO

from memgap.engine.adapters import adapter_for
from memgap.telemetry import host, nvml
from memgap.telemetry.prometheus import Page, merge_pages, parse_page

ENGINE_COLUMNS = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_fraction",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "prefix_cache_queries",
    "prefix_cache_hits",
)
COLUMNS = ("time_monotonic_s", *ENGINE_COLUMNS, *nvml.COLUMNS, *host.COLUMNS)


def fetch_engine_sample(urls: Sequence[str], adapter_name: str, timeout_s: float) -> dict[str, float]:
    """Return the engine columns of all servers, as of one engine of several parts; empty where one does not answer."""
    return adapter_for(adapter_name).metrics_sample(fetch_pages(urls, timeout_s))


def fetch_pages(urls: Sequence[str], timeout_s: float) -> Page:
    """Return the samples of all servers' metrics pages; empty without one, or where one does not answer in time."""
    if not urls:
        return {}
    if len(urls) == 1:
        return fetch_page(urls[0], timeout_s)
    with ThreadPoolExecutor(len(urls)) as pool:
        pages = list(pool.map(lambda url: fetch_page(url, timeout_s), urls))
    return merge_pages(pages) if all(pages) else {}


def fetch_page(url: str, timeout_s: float) -> Page:
    """Return the page at `url`/metrics; empty where it does not answer in time or in format."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=timeout_s) as response:
            return parse_page(response.read().decode("utf-8", "replace"))
    except (OSError, ValueError, http.client.HTTPException):
        return {}


def sample_until_stdin_closes(
    urls: Sequence[str], adapter_name: str, pids: Sequence[int], own: Sequence[int], interval_s: float, out: TextIO
) -> None:
    """Write the header, then a row at start + n * interval_s, until standard input is at its end.

    `own` are process ids that belong to the session besides the servers' `pids`.
    """
    writer = csv.DictWriter(out, COLUMNS, restval="")
    writer.writeheader()
    start_s, tick = time.monotonic(), 0
    with nvml.Nvml() as gpu:
        processes = host.HostSampler(pids)
        while True:
            row: dict[str, float] = {"time_monotonic_s": time.monotonic()}
            row.update(fetch_engine_sample(urls, adapter_name, timeout_s=max(interval_s, 1.0)))
            row.update(gpu.sample())
            row.update(processes.sample())
            row.update(gpu.foreign_processes(processes.pids | host.with_children(own)))
            writer.writerow(
                {
                    column: f"{value:.9g}" if column != "time_monotonic_s" else f"{value:.6f}"
                    for column, value in row.items()
                }
            )
            out.flush()
            tick = max(tick + 1, int((time.monotonic() - start_s) / interval_s) + 1)
            wait_s = max(0.0, start_s + tick * interval_s - time.monotonic())
            if select.select([sys.stdin], [], [], wait_s)[0]:
                line = sys.stdin.readline()
                if not line:
                    return
                told = json.loads(line)
                urls, own, processes = told["urls"], told["own"], host.HostSampler(told["pids"])


class Sampler:
    """The sampling process as a context manager; `rows()` gives what it wrote."""

    def __init__(
        self,
        urls: Sequence[str],
        adapter_name: str,
        pids: Sequence[int],
        own: Sequence[int],
        interval_s: float,
        out: Path,
    ) -> None:
        self._command = [
            sys.executable,
            "-m",
            "memgap.telemetry.sampler",
            *(part for url in urls for part in ("--url", url)),
            *("--adapter", adapter_name),
            *(part for pid in pids for part in ("--pid", str(pid))),
            *(part for pid in own for part in ("--own", str(pid))),
            *("--interval-s", str(interval_s)),
            *("--out", str(out)),
        ]
        self._out = out

    def __enter__(self) -> "Sampler":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        return self

    def rebind(self, urls: Sequence[str], pids: Sequence[int], own: Sequence[int]) -> None:
        """Sample these servers and processes from the next tick on; the rows go on in the same file."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a sampler that has ended is a gap in the rows, which a verdict sees
            self._process.stdin.write(json.dumps({"urls": list(urls), "pids": list(pids), "own": list(own)}) + "\n")
            self._process.stdin.flush()

    def wait_for_first_row(self, timeout_s: float = 20.0) -> None:
        """Return once the first sample is written, or after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self._process.poll() is None:
            if self._out.exists() and self._out.read_text(encoding="utf-8").count("\n") >= 2:
                return
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def rows(self, window_start_monotonic_s: float) -> list[dict[str, float]]:
        """Return the samples with `time_s` counted from the start of the window; empty cells are absent keys."""
        return read_rows(self._out, window_start_monotonic_s)


def read_rows(path: Path, window_start_monotonic_s: float) -> list[dict[str, float]]:
    """Read a sampler's file; an unfinished last line, and others that are no numbers, are left out."""
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = (line.replace("\0", "") for line in file if line.endswith("\n"))
        for raw in csv.DictReader(lines, quoting=csv.QUOTE_NONE):
            if None in raw.values() or None in raw:
                continue
            try:
                row = {column: float(cell) for column, cell in raw.items() if cell != ""}
                row["time_s"] = row.pop("time_monotonic_s") - window_start_monotonic_s
            except (ValueError, KeyError):
                continue
            rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Sample until standard input is closed."""
    parser = argparse.ArgumentParser(description="Sample an engine, its GPU and its host on a fixed clock.")
    parser.add_argument("--url", action="append", default=[], help="a server; none where there is only a process")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--pid", type=int, action="append", default=[], help="the root of a server's process tree")
    parser.add_argument("--own", type=int, action="append", default=[], help="a process that is no server but ours")
    parser.add_argument("--interval-s", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        with options.out.open("w", encoding="utf-8", newline="") as out:
            sample_until_stdin_closes(options.url, options.adapter, options.pid, options.own, options.interval_s, out)
    except OSError as error:
        print(f"memgap: the sampler cannot write {options.out}: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
