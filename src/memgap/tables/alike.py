"""Points are compared by the same average: of their steady parts, or of their whole windows."""

import pandas as pd

from memgap.stats.averaging import AVERAGINGS


def alike(name: str, *groups: pd.DataFrame) -> str:
    """Return the column to compare groups of points by: `name`, or its values over the whole window.

    That is where some of the points have no steady part and others do: a steady part's throughput against a whole
    window's would compare the two averages, not the points.
    """
    averaging = {one for group in groups for one in group["averaging"].dropna()}
    return f"window_{name}" if averaging == set(AVERAGINGS) else name
