"""How often a 95 % interval over repeats holds the true mean: Student's t and the bootstrap, by number of repeats.

`python benchmarks/interval_coverage.py` prints a table; values are normal, as means over long runs nearly are.
"""

import numpy as np

from memgap.stats.intervals import bootstrap_interval
from memgap.stats.student import mean_interval

TRIALS = 2000


def coverage(repeats: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the share of trials in which the interval of t, and of the bootstrap, holds the true mean."""
    held = np.zeros(2)
    for trial in range(TRIALS):
        values = rng.normal(0.0, 1.0, repeats)
        for place, (low, high) in enumerate((mean_interval(values.tolist()), bootstrap_interval(values, seed=trial))):
            held[place] += low <= 0.0 <= high
    student, bootstrap = held / TRIALS
    return float(student), float(bootstrap)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print("| repeats | Student's t | bootstrap |\n| --- | --- | --- |")
    for repeats in (2, 3, 4, 5, 10, 20):
        student, bootstrap = coverage(repeats, rng)
        print(f"| {repeats} | {student:.1%} | {bootstrap:.1%} |")


if __name__ == "__main__":
    main()
