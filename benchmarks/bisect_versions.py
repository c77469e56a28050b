"""How often a search among simulated versions names the right one, blames a wrong one, or nobody; and what it measures.

`python benchmarks/bisect_versions.py --runs 2000` prints one line a step and spread.
"""

import argparse

import numpy as np

from memgap.versions.bisect import LOOKS, Measure, bisect


def simulated(versions: int, step: float, at: int, spread: float, rng: np.random.Generator) -> Measure:
    """Return versions of which those from `at` on are slower by a share; `spread` is that of a paired difference."""
    truth = np.where(np.arange(versions) >= at, np.log1p(step), 0.0)
    noise = rng.normal(0.0, spread, (versions, LOOKS[-1]))
    return lambda first, other, blocks: list(map(float, truth[other] - truth[first] + noise[other, :blocks]))


def main() -> None:
    """Print the shares and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--versions", type=int, default=32)
    options = parser.parse_args()
    rng = np.random.default_rng(19)
    print("step_percent,spread_percent,named,blamed_wrongly,nobody,comparisons_max,comparisons_mean,blocks_mean")
    for step in (0.0, 0.02, 0.03, 0.05):
        for spread in (0.004, 0.008, 0.016):
            named = wrong = comparisons = blocks = most = 0
            for run in range(options.runs):
                at = 1 + run % (options.versions - 1)
                found = bisect(options.versions, simulated(options.versions, step, at, spread, rng))
                named += bool(step) and found.version == at
                wrong += found.version is not None and (not step or found.version != at)
                comparisons += len(found.comparisons)
                most = max(most, len(found.comparisons))
                blocks += sum(one.blocks for one in found.comparisons)
            shares = [named / options.runs, wrong / options.runs, 1 - (named + wrong) / options.runs]
            means = [most, comparisons / options.runs, blocks / options.runs]
            print(",".join(f"{one:g}" for one in (100 * step, 100 * spread, *shares, *means)))


if __name__ == "__main__":
    main()
