"""A process of its own that samples on a fixed clock, so that sampling never delays the load generator.

`python -m memgap.telemetry.sampler --url URL --adapter vllm --pid PID --interval-s 0.25 --out FILE` writes one CSV row
a tick until its standard input is closed; with several servers, one --url and one --pid each. A line on its input with
{"urls", "pids", "own"} says what is sampled from then on, as servers that start again are other processes. `--gpus`
names the GPUs that it is about; without it they are those that this process may use. Of several, each has columns of
its own (gpu0_power_w) after those of all together. Times are CLOCK_MONOTONIC, which all processes of a machine share. A
tick that is late is not made up for: the next one comes when it is due.
"""

import argparse
import contextlib
import csv
import json
import math
import select
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TextIO

from memgap.engine.adapters import adapter_for
from memgap.engine.prometheus import Page, merge_pages, parse_page
from memgap.loopback import fetch
from memgap.telemetry import host, nvml, window
from memgap.telemetry.gpus import id_list

ENGINE_COLUMNS = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_fraction",
    "kv_cache_usage_fullest_fraction",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "decoded_tokens",
)
COLUMNS = ("time_monotonic_s", *ENGINE_COLUMNS, *nvml.COLUMNS, *host.COLUMNS)


def columns_of(rows: Sequence[dict[str, float]]) -> list[str]:
    """Return the columns of a point's telemetry: time, those of `COLUMNS`, and those that each GPU has of its own."""
    shared = ["time_s", *COLUMNS[1:]]
    seen = dict.fromkeys(name for row in rows for name in row)
    return shared + [name for name in seen if name.startswith("gpu") and name not in shared]


def fetch_engine_sample(urls: Sequence[str], adapter_name: str, timeout_s: float) -> dict[str, float]:
    """Return the engine columns of all servers, as of one engine of several parts; empty where one does not answer.

    A column is NaN where the engine gave no finite number for it.
    """
    adapter = adapter_for(adapter_name)
    return adapter.metrics_sample(fetch_pages(urls, timeout_s, adapter.metrics_path))


def fetch_pages(urls: Sequence[str], timeout_s: float, path: str = "/metrics") -> Page:
    """Return the samples of all servers' metrics pages; empty without one, or where one does not answer in time."""
    if not urls:
        return {}
    if len(urls) == 1:
        return fetch_page(urls[0], timeout_s, path)
    with ThreadPoolExecutor(len(urls)) as pool:
        pages = list(pool.map(lambda url: fetch_page(url, timeout_s, path), urls))
    return merge_pages(pages) if all(pages) else {}


def fetch_page(url: str, timeout_s: float, path: str = "/metrics") -> Page:
    """Return a server's metrics page; empty where it does not answer in time or in format."""
    try:
        return parse_page(fetch(f"{url}{path}", timeout_s)[1].decode("utf-8", "replace"))
    except (OSError, ValueError):
        return {}


def sample_until_stdin_closes(
    urls: Sequence[str],
    adapter_name: str,
    pids: Sequence[int],
    own: Sequence[int],
    interval_s: float,
    out: TextIO,
    gpus: Collection[str] | None = None,
) -> None:
    """Write the header, then a row at start + n * interval_s, until standard input is at its end.

    `own` are process ids that belong to the session besides the servers' `pids`. `gpus` are the ids of the servers'
    GPUs, None for those that this process may use.
    """
    start_s, tick = time.monotonic(), 0
    with nvml.Nvml(only=gpus) as gpu:
        writer = csv.DictWriter(out, (*COLUMNS, *gpu.own_columns), restval="", extrasaction="ignore")
        writer.writeheader()
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
        gpus: Sequence[str] | None = None,
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
            *(("--gpus", ",".join(gpus)) if gpus is not None else ()),
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
    """Read a sampler's file; an unfinished last line, and others that are no numbers, are left out.

    So is a cell that is no finite number; its row says so with `window.left_out(column)`: 1.
    """
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
            if math.isfinite(row["time_s"]):
                rows.append(window.finite_cells(row))
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
    parser.add_argument("--gpus", type=id_list, help="ids of the servers' GPUs, with commas; empty for none")
    options = parser.parse_args(argv)
    try:
        with options.out.open("w", encoding="utf-8", newline="") as out:
            sample_until_stdin_closes(
                options.url, options.adapter, options.pid, options.own, options.interval_s, out, options.gpus
            )
    except OSError as error:
        print(f"memgap: the sampler cannot write {options.out}: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
