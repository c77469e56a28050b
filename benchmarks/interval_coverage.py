"""How often do the 95 % intervals hold the true mean, and is B_opt right as often as its stability says?

`python benchmarks/interval_coverage.py [--trials 2000] [--sweeps 400]` simulates and prints three Markdown tables: the
share of trials in which an interval over repeats holds the true mean, for normal values, for skewed ones (exponential)
and where every tenth run is 5 standard deviations slow; the same for the interval within one run, where runs differ;
and sweeps whose true B_opt is known, by the share of draws that agree with the measured one.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from memgap.advisor.bca import Profile, advise
from memgap.advisor.stability import stability
from memgap.stats.intervals import bootstrap_bounds, mean_interval, within_run_interval
from memgap.stats.series import BATCHES
from memgap.stats.student import half_width

Values = NDArray[np.float64]
Bounds = tuple[float, float]
REPEATS = (2, 3, 4, 5, 6, 8, 10, 20)
CAPS = (1, 8, 32, 64, 96, 128, 192, 256)
RUN_NOISE = 0.01
"""Standard deviation of a simulated run's speed."""


def normal(rng: np.random.Generator, count: int) -> Values:
    """Return normal values with the mean 0."""
    return rng.normal(0.0, 1.0, count)


def skewed(rng: np.random.Generator, count: int) -> Values:
    """Return exponential values, moved to the mean 0."""
    return rng.exponential(1.0, count) - 1.0


def slow_runs(rng: np.random.Generator, count: int) -> Values:
    """Return normal values of which every tenth is 5 less, moved to the mean 0."""
    slow: Values = rng.normal(0.5, 1.0, count) - 5.0 * (rng.random(count) < 0.1)
    return slow


def student(values: Sequence[float]) -> Bounds:
    """Return the Student t bounds."""
    mean, half = float(np.mean(values)), half_width(values)
    return mean - half, mean + half


def plain_percentile(values: Sequence[float]) -> Bounds:
    """Return the bootstrap percentile bounds as the textbook has them."""
    drawn = np.random.default_rng(1).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def used(values: Sequence[float]) -> Bounds:
    """Return the bounds that memgap takes for so many repeats."""
    found = mean_interval(values)
    assert found is not None
    return found.low, found.high


METHODS: dict[str, Callable[[Sequence[float]], Bounds]] = {
    "Student t": student,
    "percentile": plain_percentile,
    "expanded percentile": bootstrap_bounds,
    "used": used,
}


def coverage(kind: Callable[[np.random.Generator, int], Values], repeats: int, trials: int) -> dict[str, float]:
    """Return for each method the share of trials in which its bounds hold the true mean of 0."""
    rng = np.random.default_rng(repeats)
    samples = [kind(rng, repeats).tolist() for _ in range(trials)]
    bounds = {name: [method(values) for values in samples] for name, method in METHODS.items()}
    return {name: sum(low <= 0.0 <= high for low, high in found) / trials for name, found in bounds.items()}


def coverage_within_run(ratio: float, trials: int) -> float:
    """Return how often a run's interval holds the mean over runs.

    `ratio`: the runs' standard deviation by the standard error within a run.
    """
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(trials):
        batches = rng.normal(100.0 + rng.normal(0.0, ratio / math.sqrt(BATCHES)), 1.0, BATCHES)
        mean = float(batches.mean())
        found = within_run_interval(mean, half_width(batches.tolist()) / mean)
        held += found is not None and found.low <= 100.0 <= found.high
    return held / trials


def sweep(rng: np.random.Generator, repeats: int) -> tuple[float, bool]:
    """Return the stability of B_opt of one simulated sweep, and whether its B_opt is the true one.

    Throughput bends at a cap drawn at random and falls slowly from 128 on; latency is the cap by throughput.
    """
    knee, fall = rng.uniform(10, 120), rng.uniform(0.0, 0.0003)
    true_tok_s = {cap: 5000 * cap / (cap + knee) * (1 - fall * max(0, cap - 128)) for cap in CAPS}
    slo = {"ms": float(rng.uniform(0.9, 1.1)) * 1e3 * 96 / true_tok_s[96]}
    true = advise([Profile(cap, tok_s, 1e3 * cap / tok_s) for cap, tok_s in true_tok_s.items()], slo, 0.1)
    profile = []
    for cap, tok_s in true_tok_s.items():
        throughputs = (tok_s * (1 + RUN_NOISE * rng.standard_normal(repeats))).tolist()
        latencies = [1e3 * cap / one for one in throughputs]
        profile.append(
            Profile(
                cap,
                float(np.mean(throughputs)),
                float(np.mean(latencies)),
                runs=tuple(zip(throughputs, latencies, strict=True)),
                throughput_interval=mean_interval(throughputs),
                latency_interval=mean_interval(latencies),
            )
        )
    found = stability(profile, slo, 0.1, draws=200)
    assert found.same_fraction is not None
    return found.same_fraction, advise(profile, slo, 0.1).b_opt == true.b_opt


def print_coverage(trials: int) -> None:
    """Print the coverage of the intervals over repeats and within a run."""
    print("| values | repeats | " + " | ".join(METHODS) + " |")
    print("| --- " * (len(METHODS) + 2) + "|")
    for kind in (normal, skewed, slow_runs):
        for repeats in REPEATS:
            cells = " | ".join(f"{share:.3f}" for share in coverage(kind, repeats, trials).values())
            print(f"| {kind.__name__.replace('_', ' ')} | {repeats} | {cells} |", flush=True)
    print("\n| runs' standard deviation by the standard error within a run | interval within one run |\n| --- | --- |")
    for ratio in (0.0, 1.0, 2.0, 4.0):
        print(f"| {ratio:g} | {coverage_within_run(ratio, trials):.3f} |", flush=True)


def print_stability(sweeps: int) -> None:
    """Print how often the measured B_opt is the true one, by what the stability says."""
    print("\n| repeats | stability | sweeps | mean stability | measured B_opt is the true one |")
    print("| --- | --- | --- | --- | --- |")
    for repeats in (2, 3, 5, 10):
        rng = np.random.default_rng(repeats)
        found = [sweep(rng, repeats) for _ in range(sweeps)]
        for low, high in ((0.0, 0.6), (0.6, 0.9), (0.9, 1.01)):
            own = [one for one in found if low <= one[0] < high]
            if own:
                said, right = np.mean(own, axis=0)
                span = f"{low:g} to {min(high, 1):g}"
                print(f"| {repeats} | {span} | {len(own)} | {said:.3f} | {right:.3f} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Simulate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sweeps", type=int, default=400)
    options = parser.parse_args(argv)
    print_coverage(options.trials)
    print_stability(options.sweeps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
