"""How many tokens a second one client core takes in, and how far its times are from the truth.

The mock engine runs in a process of its own and notes when it wrote each token; the client runs here. Each is
pinned to one core where the system allows. Prints one row a number of streams: tokens per second offered and
seen, the client's CPU per token, TTFT and ITL errors against the mock's notes.

    python benchmarks/client_capacity.py --streams 64 256 512 --step-ms 10
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run
from memgap.mock_server.launch import MockServer


@dataclass(frozen=True, slots=True)
class Errors:
    """Seen minus written, in ms: delay of the first token (p50, p99) and |error| of the gaps between chunks
    (p99)."""

    first_p50_ms: float
    first_p99_ms: float
    gap_p99_ms: float


def compare(result: LoadResult, stamp_file: Path) -> Errors:
    """Return how the client's token times differ from the times at which the mock wrote the tokens."""
    with np.load(stamp_file, allow_pickle=False) as notes:
        ids = [str(one) for one in notes["request_id"]]
        request, written_ns = notes["request"], notes["time_ns"]
    rows: dict[int, NDArray[np.int64]] = {}
    order = np.argsort(request, kind="stable")
    starts = np.searchsorted(request[order], np.arange(len(ids) + 1))
    for number, request_id in enumerate(ids):
        if "warmup" not in request_id:
            index = int(request_id.rpartition("-")[2])
            rows[index] = written_ns[order[starts[number] : starts[number + 1]]]
    first_ms: list[float] = []
    gaps_ms: list[NDArray[np.float64]] = []
    events = result.events
    for one in result.results:
        seen_s = events.time_s[events.request == one.index] + result.start_monotonic_s
        written_s = rows[one.index] / 1e9
        if one.status != "ok" or len(seen_s) != len(written_s):
            continue
        first_ms.append((seen_s[0] - written_s[0]) * 1e3)
        gaps_ms.append(np.abs(np.diff(seen_s) - np.diff(written_s)) * 1e3)
    p50, p99 = np.percentile(first_ms, [50, 99])
    return Errors(float(p50), float(p99), float(np.percentile(np.concatenate(gaps_ms), 99)))


def measure(streams: int, tokens: int, step_ms: float, mock_core: int | None) -> str:
    """Return the table's row for `streams` requests at once with `tokens` tokens each."""
    with tempfile.TemporaryDirectory() as folder:
        stamp_file = Path(folder) / "stamps.npz"
        options = ["--max-num-seqs", str(streams), "--kv-tokens", str(streams * 4096), "--precise-timing"]
        options += ["--step-base-ms", str(step_ms), "--stamp-file", str(stamp_file)]
        with MockServer(*options, core=mock_core, patience_s=120) as mock:
            plan = LoadPlan("mock", "closed", streams, concurrency=streams, warmup_requests=1)
            prompts = [Prompt(tokens, [1] * 16) for _ in range(streams)]
            result = run(plan, prompts, [mock.url], warmup_prompts=prompts[:1])
        errors = compare(result, stamp_file)
    counts = dict(Counter(one.status for one in result.results))
    if counts != {"ok": streams}:
        print(f"warning: not every request was completed: {counts}", file=sys.stderr)
    health = result.health
    offered = streams / step_ms * 1e3 if step_ms else float("inf")
    rate = health.tokens / result.duration_s
    cpu_us = health.cpu_fraction * result.duration_s / health.tokens * 1e6
    return (
        f"{streams:8d} {offered:12.0f} {rate:10.0f} {cpu_us:8.2f} {health.cpu_fraction:6.0%} "
        f"{health.tokens / health.reads:9.2f} {errors.first_p50_ms:9.2f} {errors.first_p99_ms:9.2f} "
        f"{errors.gap_p99_ms:8.2f} {health.loop_lag_p99_ms:9.2f}"
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Capacity and time error of the load client on one core.")
    parser.add_argument("--streams", type=int, nargs="+", default=[50, 200, 800], help="requests at once")
    parser.add_argument("--tokens", type=int, default=100, help="output tokens of each request")
    parser.add_argument("--step-ms", type=float, default=10.0, help="time between a stream's tokens")
    parser.add_argument("--client-core", type=int, help="core of the client (default: the last one)")
    parser.add_argument("--mock-core", type=int, help="core of the mock (default: the first one)")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    client_core = cores[-1] if given.client_core is None else given.client_core
    mock_core = cores[0] if given.mock_core is None else given.mock_core
    if client_core == mock_core:
        print("warning: client and mock share one core; the times mean little", file=sys.stderr)
    os.sched_setaffinity(0, {client_core})
    print("                   tok/s      tok/s   CPU us  client  tokens   TTFT error ms      ITL err  loop lag")
    print(" streams      offered       seen   /token    CPU   per read       p50       p99   p99 ms    p99 ms")
    for streams in given.streams:
        print(measure(streams, given.tokens, given.step_ms, mock_core), flush=True)


if __name__ == "__main__":
    main()
