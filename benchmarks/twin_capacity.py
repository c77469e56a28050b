"""The capacity search against simulated servers whose boundary is known: how often it lies in the stated interval.

    .venv/bin/python benchmarks/twin_capacity.py --servers 500 --out capacity.csv

Each server has coefficients drawn from the priors (half as wide), an SLO that is a multiple of its latencies when it is
nearly idle, and a pool that may preempt. The twin knows the coefficients up to an error of 10 % each and all times up
to 5 %, so that it is wrong about the boundary. The boundary is the rate at which 99 % of the requests keep the SLO in
the mean over windows of the length that is measured. It lies in the interval where the share over TRUTH_WINDOWS further
windows (60, or more until it is clear) is 99 % or more at the low end, and less at the high end.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.roofline.predictions import setup_of
from memgap.twin.calibrate import PRIORS, Calibration, run
from memgap.twin.capacity import SHARE, Expectation, Window, search
from memgap.twin.outcome import latencies_ms
from memgap.twin.question import Question, asked
from memgap.twin.simulate import Request, Server
from memgap.twin.stored import Observation

REQUESTS, TRUTH_WINDOWS, TIMES_OFF, EACH_OFF = 250, 250, 0.05, 0.10
MODELS = ("opt-1.3b", "llama-2-7b", "llama-3.1-8b")


def server(number: int) -> tuple[Expectation, Expectation]:
    """Return a server as it is, and as the twin knows it."""
    stream = np.random.RandomState(number)
    theta = 0.5 * stream.standard_normal(len(PRIORS))
    count = 400
    outputs = stream.randint(10, int(stream.choice([40, 80])), size=count)
    prompts = stream.randint(16, int(stream.choice([64, 256])), size=count)
    like = Observation(
        key=str(number),
        model=MODELS[number % 3],
        workload="made",
        batch_cap=64,
        repeat=0,
        requests=tuple(Request(int(prompt), int(output)) for prompt, output in zip(prompts, outputs, strict=True)),
        server=Server(
            max_num_seqs=int(stream.choice([32, 128])),
            max_batched_tokens=2048,
            num_blocks=int(stream.choice([400, 9000])),
        ),
        concurrency=64,
        rate_req_s=None,
        setup=setup_of(MODELS[number % 3], "H100"),
        graph_tokens=512,
        max_model_len=2048,
        summary={},
    )
    spreads = np.array([spread for _, spread in PRIORS.values()])
    known = theta + EACH_OFF / spreads * stream.standard_normal(len(PRIORS))
    covariance = np.diag((EACH_OFF / spreads) ** 2)
    idle = run(asked(Question(cap=1, requests=60), like), theta)
    slo = {
        "ttft": float(np.quantile(latencies_ms(idle)["ttft"], 0.99)) * float(stream.uniform(2, 8)),
        "tpot": float(np.quantile(latencies_ms(idle)["tpot"], 0.99)) * float(stream.uniform(1.5, 4)),
    }

    def one(at: np.ndarray[Any, Any], factor: float) -> Expectation:
        calibration = Calibration(
            tuple((at + math.log(factor) * _all_times(spreads)).tolist()),
            tuple(map(tuple, covariance.tolist())),
            TIMES_OFF,
            (like,),
            {},
            {},
            (),
        )
        return Expectation(calibration, like, slo, REQUESTS)

    return one(theta, 1.0), one(known, math.exp(TIMES_OFF * stream.standard_normal()))


def _all_times(spreads: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what makes all step times longer by a factor, in standard deviations of the priors by its logarithm."""
    steps = np.arange(len(PRIORS)) < len(PRIORS) - 3
    return np.where(steps, 1 / spreads, 0.0)


def share(real: Expectation, rate: float) -> float:
    """Return the share of requests that keep the SLO at a rate, over windows until it is clear on which side it is."""
    found: list[float] = []
    while len(found) < TRUTH_WINDOWS:
        window = real.window(rate, 10_000 + len(found))
        found.append(window.good / window.sent)
        error = float(np.std(found)) / math.sqrt(len(found))
        if len(found) >= 60 and abs(float(np.mean(found)) - SHARE) > 3 * error + 1e-4:
            break
    return float(np.mean(found))


def tried(number: int) -> dict[str, Any]:
    """Return what the search made of a server."""
    real, known = server(number)
    seeds: Iterator[int] = iter(range(1000, 9000))
    seconds_at: list[float] = []

    def measure(rate: float) -> Window:
        window = real.window(rate, next(seeds))
        seconds_at.append(window.seconds)
        return window

    began_s = time.monotonic()
    shape = known.shape(draws=2)
    found = search(measure, shape)
    spent_s = time.monotonic() - began_s
    low_share = share(real, found.low) if found.low else 1.0
    high_share = share(real, found.high) if math.isfinite(found.high) else 0.0
    return {
        "server": number,
        "expected": shape.boundary,
        "load": found.load,
        "low": found.low,
        "high": found.high,
        "low_share": low_share,
        "high_share": high_share,
        "inside": low_share >= SHARE > high_share,
        "found": found.found,
        "windows": len(found.windows),
        "server_s": found.seconds,
        "search_s": spent_s,
    }


def main() -> None:
    """Try the servers and print how often the interval was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for number in range(options.first, options.first + options.servers):
        rows.append(tried(number))
        if options.out:
            pd.DataFrame(rows).to_csv(options.out, index=False)
    table = pd.DataFrame(rows)
    width = table["high"] / table["low"] - 1
    print(f"{len(table)} servers: inside {table['inside'].mean():.3f}, narrow enough {table['found'].mean():.3f}")
    open_ends = np.isinf(table["high"]).mean(), (table["low"] == 0).mean()
    print(f"without an upper end {open_ends[0]:.3f}, without a lower one {open_ends[1]:.3f}")
    print(f"width median {width.median():.3f}, p90 {width.quantile(0.9):.3f}")
    print(f"windows median {table['windows'].median():.0f}, p90 {table['windows'].quantile(0.9):.0f}")
    print(f"server seconds median {table['server_s'].median():.0f}, p90 {table['server_s'].quantile(0.9):.0f}")
    off = (table["expected"] / table["load"] - 1).abs()
    print(f"the twin alone is off by {off.median():.3f} in the median, p90 {off.quantile(0.9):.3f}")


if __name__ == "__main__":
    main()
