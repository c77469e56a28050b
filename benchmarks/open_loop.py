"""Does an open loop send when it means to, and does it show a server that stalls?

`python benchmarks/open_loop.py [--rates 10 100 1000] [--seconds 5] [--stall-s 5]` prints two Markdown tables: the
requested and the sent rate with the delay between intended and real send; and, for a server that stops for `--stall-s`
in the middle of a run, TTFT by an open loop from the intended send, from the real send, and by a closed loop that waits
for each reply before it sends the next request (coordinated omission).
"""

import argparse
import sys

from memgap.load.latency import summarize
from memgap.load.records import Arrival, LoadPlan, LoadResult, Prompt
from memgap.load.runner import run
from memgap.mock_server.launch import MockServer


def load(url: str, arrival: Arrival, requests: int, rate_req_s: float | None, concurrency: int | None) -> LoadResult:
    """Send short requests and return the result."""
    plan = LoadPlan("mock", arrival, requests, concurrency=concurrency, rate_req_s=rate_req_s, seed=1)
    return run(plan, [Prompt(4, [10 + index % 1000] * 8) for index in range(requests)], [url])


def accuracy(rate_req_s: float, seconds: float, arrival: Arrival) -> str:
    """Return a row about one rate."""
    requests = max(int(rate_req_s * seconds), 10)
    with MockServer("--step-base-ms", "2", "--max-num-seqs", "4096", "--kv-tokens", "10000000") as mock:
        result = load(mock.url, arrival, requests, rate_req_s, None)
    sent = sorted(one.sent_s for one in result.results if one.sent_s is not None)
    meant = sorted(one.intended_s for one in result.results if one.intended_s is not None)
    span_s, meant_s = sent[-1] - sent[0], meant[-1] - meant[0]
    health = result.health
    return (
        f"| {arrival} | {rate_req_s:g} | {(requests - 1) / meant_s:.2f} | {(requests - 1) / span_s:.2f} "
        f"| {health.send_slip_p99_ms:.2f} | {health.send_slip_max_ms:.2f} |"
    )


def stalled(seconds: float, stall_s: float, rate_req_s: float) -> None:
    """Print what each way of measuring says of a stall in the middle of a run."""
    requests = int(rate_req_s * (seconds + stall_s))
    fault = f"stall:{requests // 3}:{stall_s:g}"
    names = ("ttft_median_ms", "ttft_p90_ms", "ttft_p99_ms", "ttft_mean_ms")
    print("\n| measured | TTFT median, ms | p90 | p99 | mean |\n| --- | --- | --- | --- | --- |")
    rows: list[tuple[str, Arrival, float | None, int | None, str]] = [
        ("open loop, from the intended send", "constant", rate_req_s, None, "ttft_intended"),
        ("open loop, 8 connections, from the intended send", "constant", rate_req_s, 8, "ttft_intended"),
        ("open loop, 8 connections, from the real send", "constant", rate_req_s, 8, "ttft"),
        ("closed loop, 1 connection", "closed", None, 1, "ttft"),
    ]
    for label, arrival, rate, concurrency, metric in rows:
        with MockServer("--step-base-ms", "2", "--max-num-seqs", "4096", "--fault", fault) as mock:
            summary = summarize(load(mock.url, arrival, requests, rate, concurrency))
        values = " | ".join(f"{summary[name.replace('ttft', metric, 1)]:.1f}" for name in names)
        print(f"| {label} | {values} |", flush=True)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--stall-s", type=float, default=5)
    given = parser.parse_args()
    print("| arrival | asked, req/s | intended, req/s | sent, req/s | send delay p99, ms | largest, ms |")
    print("|" + " --- |" * 6)
    for rate in given.rates:
        for arrival in ("constant", "poisson"):
            print(accuracy(rate, given.seconds, arrival), flush=True)
    stalled(given.seconds, given.stall_s, 50.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
