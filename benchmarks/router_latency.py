"""How much does the router add to the time to the first token?

`python benchmarks/router_latency.py [--rate 500] [--seconds 6] [--rounds 5]` sends requests at a constant rate to two
simulated engines, in turn straight to them and through the router, and prints the medians of both, their difference and
that of the 99th percentiles, in ms: the median over rounds and its range. Each engine answers after one step of 2 ms.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from memgap.host.ports import free_port
from memgap.host.supervised import Supervised
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run
from memgap.loopback import answers
from memgap.mock_server.launch import MockServer

OUTPUT_TOKENS, PROMPT_TOKENS, STEP_MS = 4, 64, 2.0


def ttft_ms(urls: list[str], rate_req_s: float, seconds: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time to the first token in ms."""
    requests = round(rate_req_s * seconds)
    prompts = [Prompt(OUTPUT_TOKENS, [1 + index % 1000] * PROMPT_TOKENS) for index in range(requests)]
    plan = LoadPlan("mock", "constant", requests, rate_req_s=rate_req_s)
    results = run(plan, prompts, urls).results
    failed = [one for one in results if one.status != "ok"]
    if failed:
        raise SystemExit(f"{len(failed)} requests failed: {failed[0].error}")
    times_s = [(one.first_token_s or 0.0) - (one.sent_s or 0.0) for one in results]
    median_s, p99_s = np.percentile(times_s, (50, 99)).tolist()
    return 1e3 * median_s, 1e3 * p99_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a load")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    engine = ("--step-base-ms", str(STEP_MS), "--max-num-seqs", "512")
    with MockServer(*engine) as one, MockServer(*engine) as other, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, "-m", "memgap.router", "--port", str(port), "--policy", "round-robin"]
        router = Supervised(
            [*command, "--member", f"a={one.url}", "--member", f"b={other.url}"], Path(folder) / "router.log", {}
        )
        url, added = f"http://127.0.0.1:{port}", []
        try:
            while not answers(f"{url}/health"):
                time.sleep(0.05)
            print("| round | straight, ms (p50, p99) | through the router, ms (p50, p99) | added, ms (p50, p99) |")
            print("| --- | --- | --- | --- |")
            for number in range(options.rounds):
                ways = [[one.url, other.url], [url]]
                order = ways if number % 2 else ways[::-1]
                found = {len(way): ttft_ms(way, options.rate, options.seconds) for way in order}
                straight, routed = found[2], found[1]
                added.append((routed[0] - straight[0], routed[1] - straight[1]))
                pairs = (straight, routed, added[-1])
                print(
                    f"| {number + 1} | " + " | ".join(f"{p50:.2f}, {p99:.2f}" for p50, p99 in pairs) + " |", flush=True
                )
        finally:
            router.stop()
    for name, values in zip(("p50", "p99"), zip(*added, strict=True), strict=True):
        print(f"added to the {name}: {statistics.median(values):.2f} ms ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
