"""How many values a percentile needs before it is told."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BEYOND = 10
"""Values that lie beyond a percentile, of those that it is taken from, in the mean."""


def enough(values: float, percent: float) -> bool:
    """Whether there are 10 / (1 - q) values at least for a percentile q."""
    return values * (100 - percent) >= 100 * BEYOND


def percentile(values: "NDArray[np.float64] | pd.Series[float]", percent: float) -> float | None:
    """Return a percentile with linear interpolation; None where there are too few values."""
    return float(np.percentile(values, percent)) if enough(len(values), percent) else None
