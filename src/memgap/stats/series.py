"""A series of rates in equal slices of time: where its transient ends, and how sure its mean is."""

import numpy as np
from numpy.typing import NDArray

from memgap.stats.student import t_975

SLICES = 100
BATCHES = 10

Series = NDArray[np.float64]


def mser(values: Series) -> int:
    """Return how many first values to drop, in fives: of the means of five, the d up to half of them with the least
    variance / (n - d).
    """
    means = values[: len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)
    if len(means) < 4:
        return 0
    scores = [float(np.var(means[cut:]) / (len(means) - cut)) for cut in range(len(means) // 2 + 1)]
    return 5 * int(np.argmin(scores))


def half_width_fraction(batches: Series) -> float:
    """Return half the width of the 95 % interval of the mean of batch means, by that mean; infinite for a mean of 0."""
    mean = float(batches.mean())
    if len(batches) < 2 or mean <= 0:
        return float("inf")
    return float(t_975(len(batches) - 1) * batches.std(ddof=1) / np.sqrt(len(batches)) / mean)


def interval_so_far(counts: Series, from_slice: int) -> float:
    """Return the half width by the mean of what has been counted in equal slices until now, infinite without enough.

    The transient is cut as in a whole run: by MSER on 100 slices, and not before `from_slice`.
    """
    wide = max(len(counts) // SLICES, 1)
    if len(counts) // wide < 4 * 5:
        return float("inf")
    coarse = counts[: len(counts) // wide * wide].reshape(-1, wide).sum(axis=1)
    start = max(mser(coarse) * wide, from_slice)
    kept = counts[start:]
    if len(kept) < BATCHES:
        return float("inf")
    return half_width_fraction(kept[len(kept) % BATCHES :].reshape(BATCHES, -1).sum(axis=1))
