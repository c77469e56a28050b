"""How often does a tuning name a winner where there is none? A race against taking the best single run.

`python benchmarks/tuning_aa.py [--trials 2000] [--measurements FILE ...]` prints Markdown tables.

A/A: all configurations are the same, so every winner other than the default is false. Noise is normal, resampled from
the repeats recorded on an H200, with slow runs, with a drift, and with a difference that a server keeps while it runs
(which `servers: together` does not see). A/B: one configuration is better by a known share. `--measurements` takes
measurements.csv of tunings of identical configurations that were run; labels are shuffled within each block.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memgap.canonical import content_key
from memgap.kinds.registry import kind_of
from memgap.recorded.files import all_points
from memgap.stats.averaging import value
from memgap.tuning.race import RaceRule, judge

Values = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int, int], Values]
"""Returns logarithms of the throughput, of shape (blocks, arms), of configurations that are all the same."""
RULE = RaceRule(false_winner_rate=0.05, least_blocks=3, most_blocks=8)
RECORDED = Path(__file__).resolve().parents[1] / "recorded/h200"
GAIN_THAT_COUNTS = 0.01
"""What the naive methods call a winner: better than the default by more than this share."""


def recorded_residuals() -> Values:
    """Return the logarithmic deviations of recorded repeats from their mean, widened for the mean's own error."""
    groups: dict[str, list[float]] = {}
    for point in all_points(RECORDED):
        restored = kind_of(point["record"]).restored(point)
        tok_s = value(restored["summary"], "output_throughput_tok_s")
        if point["record"].get("kind") != "offline" and point["status"] == "ok" and tok_s:
            record = {name: value for name, value in point["record"].items() if name != "repeat"}
            groups.setdefault(content_key(record), []).append(math.log(tok_s))
    found = []
    for values in groups.values():
        if len(values) > 1:
            found += [(one - np.mean(values)) * math.sqrt(len(values) / (len(values) - 1)) for one in values]
    return np.array(found)


def normal(rng: np.random.Generator, blocks: int, arms: int) -> Values:
    """Return normal noise of 1 %."""
    return rng.normal(0.0, 0.01, (blocks, arms))


def slow_runs(rng: np.random.Generator, blocks: int, arms: int) -> Values:
    """Return normal noise of 0.5 % where every twentieth run is 5 % slow."""
    drawn: Values = rng.normal(0.0, 0.005, (blocks, arms)) - 0.05 * (rng.random((blocks, arms)) < 0.05)
    return drawn


def drift(rng: np.random.Generator, blocks: int, arms: int) -> Values:
    """Return normal noise of 1 % on a machine that changes by 3 % from block to block."""
    drawn: Values = rng.normal(0.0, 0.01, (blocks, arms)) + rng.normal(0.0, 0.03, (blocks, 1)).cumsum(axis=0)
    return drawn


def kept_starts(rng: np.random.Generator, blocks: int, arms: int) -> Values:
    """Return normal noise of 0.5 % beside 0.5 % that a server keeps, being started once."""
    return rng.normal(0.0, 0.005, (blocks, arms)) + rng.normal(0.0, 0.005, (1, arms))


def recorded(residuals: Values) -> Noise:
    """Return noise drawn from the recorded residuals."""

    def draw(rng: np.random.Generator, blocks: int, arms: int) -> Values:
        drawn: Values = rng.choice(residuals, (blocks, arms))
        return drawn

    return draw


def shuffled(measured: Values) -> Noise:
    """Return really measured blocks, the labels of their arms shuffled within each block."""

    def draw(rng: np.random.Generator, blocks: int, arms: int) -> Values:
        chosen = rng.integers(0, len(measured), blocks) if blocks > len(measured) else rng.permutation(len(measured))
        return np.array([rng.permutation(measured[one])[:arms] for one in chosen[:blocks]])

    return draw


def race(values: Values, rule: RaceRule) -> tuple[int, int, float]:
    """Return (the winner's place, measurements, gain that the winner is said to have); place 0 is the default."""
    names = [str(place) for place in range(values.shape[1])]
    blocks: list[dict[str, float]] = []
    while True:
        verdict = judge(names, "0", [], blocks, {}, rule)
        if verdict.finished:
            winner = verdict.winner or "0"
            return int(winner), sum(map(len, blocks)), verdict.standings[winner].gain_fraction or 0.0
        row = values[len(blocks)]
        blocks.append({name: float(row[int(name)]) for name in verdict.measure})


def best_mean(values: Values, runs: int) -> tuple[int, int, float]:
    """Return the same of taking the best mean of so many runs of each, where it beats the default by 1 %."""
    means = values[:runs].mean(axis=0)
    place = int(means.argmax())
    gain = math.expm1(means[place] - means[0])
    return (place if gain > GAIN_THAT_COUNTS else 0), runs * values.shape[1], gain


METHODS: dict[str, Callable[[Values], tuple[int, int, float]]] = {
    "best single run": lambda values: best_mean(values, 1),
    "best of 3 means": lambda values: best_mean(values, 3),
    "race": lambda values: race(values, RULE),
}


def trial_table(name: str, noise: Noise, arms: Sequence[int], effects: Sequence[float], trials: int) -> None:
    """Print a row for each number of arms, true gain of the last of them, and method."""
    for number in arms:
        for effect in effects:
            rng = np.random.default_rng([number, round(1000 * effect)])
            drawn = [noise(rng, RULE.most_blocks, number) for _ in range(trials)]
            for values in drawn:
                values[:, -1] += math.log1p(effect)
            for method, decide in METHODS.items():
                found = [decide(values) for values in drawn]
                true = number - 1 if effect else 0
                false = np.mean([place not in (0, true) for place, _, _ in found])
                right = np.mean([place == true for place, _, _ in found])
                runs = np.mean([count for _, count, _ in found])
                claimed = [gain for place, _, gain in found if place]
                said = f"{np.mean(claimed):+.1%}" if claimed else ""
                head = f"| {name} | {number} | {effect:.0%} | {method} |"
                print(f"{head} {false:.1%} | {right:.1%} | {runs:.1f} | {said} |", flush=True)


def measured_blocks(path: Path) -> Values:
    """Return the complete blocks of measurements.csv, of shape (blocks, arms), as logarithms."""
    table = pd.read_csv(path)
    wide = table.pivot_table(index=["tier", "block"], columns="label", values="output_tps_per_gpu").dropna()
    found: Values = np.log(wide.to_numpy(dtype=np.float64))
    return found


def main(argv: list[str] | None = None) -> int:
    """Simulate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--measurements", type=Path, nargs="*", default=[])
    options = parser.parse_args(argv)
    residuals = recorded_residuals()
    print(f"{len(residuals)} recorded repeats, standard deviation {residuals.std():.2%}\n")
    print("| noise | arms | true gain | method | false winner | right answer | measurements | gain said of winners |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    if not options.measurements:
        for name, noise in (
            ("normal, 1 %", normal),
            ("recorded on an H200", recorded(residuals)),
            ("slow runs", slow_runs),
            ("drift", drift),
        ):
            trial_table(name, noise, (4, 16), (0.0,), options.trials)
        trial_table("servers kept up", kept_starts, (4,), (0.0,), options.trials)
        trial_table("recorded on an H200", recorded(residuals), (8,), (0.03, 0.1), options.trials)
    for path in options.measurements:
        blocks = measured_blocks(path)
        said = f"{path.parent.name}: {len(blocks)} blocks measured"
        trial_table(said, shuffled(blocks), (blocks.shape[1],), (0.0,), options.trials)
        spread = blocks - blocks.mean(axis=0) - blocks.mean(axis=1, keepdims=True) + blocks.mean()
        freedom = (blocks.shape[0] - 1) * (blocks.shape[1] - 1)
        print(f"\nstandard deviation within blocks {math.sqrt((spread**2).sum() / freedom):.2%}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
