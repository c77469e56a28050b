"""The exact sign-flip test of paired differences."""

import itertools
import math
from collections.abc import Sequence

MOST_FLIPPED = 16
"""With more differences than this the sign flips are too many to count."""


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of paired differences: the share of their sign flips with a mean as far from 0.

    Every flip is counted, so it is exact where differences are symmetric about 0. None for none of them or too many.
    """
    if not 0 < len(differences) <= MOST_FLIPPED:
        return None
    seen = abs(math.fsum(differences)) * (1 - 1e-12)
    flips = itertools.product((1.0, -1.0), repeat=len(differences))
    found = [abs(math.fsum(sign * one for sign, one in zip(signs, differences, strict=True))) for signs in flips]
    return sum(one >= seen for one in found) / len(found)
