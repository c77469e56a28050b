"""How sure B_opt is: the advisor asked again and again with values drawn from the intervals of T and L."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memgap.advisor.bca import Profile, advise

DRAWS = 1000
Z_95 = 1.96


@dataclass(frozen=True)
class Stability:
    """Share of draws with the same B_opt, how often each cap came out (None: nothing fits), and a sentence."""

    same_fraction: float
    by_cap: Mapping[int | None, int]
    sentence: str


def stability(
    profile: Sequence[Profile],
    half_widths: Mapping[int, tuple[float, float]],
    slo: Mapping[str, Any],
    epsilon: float,
    b_opt: int | None,
) -> Stability:
    """Return how B_opt holds under the intervals.

    `half_widths`: for a cap, half of the 95 % interval of T (tok/s) and of L (ms); caps without are taken as exact.
    Errors are drawn as normal and independent, 1,000 times with a fixed seed; the SLO is taken anew from each draw.
    """
    rng = np.random.default_rng(0)
    found: Counter[int | None] = Counter()
    for _ in range(DRAWS):
        drawn = [_draw(one, half_widths.get(one.batch_cap, (0.0, 0.0)), rng) for one in profile]
        found[advise(drawn, slo, epsilon).b_opt] += 1
    same = found[b_opt] / DRAWS
    others = [f"{cap if cap is not None else 'nothing fits'} in {n / DRAWS:.0%}" for cap, n in found.most_common()]
    sentence = f"B_opt over {DRAWS:,} draws from the intervals of throughput and latency: {', '.join(others)}."
    return Stability(same, dict(found), sentence)


def _draw(one: Profile, half: tuple[float, float], rng: np.random.Generator) -> Profile:
    if one.excluded or one.throughput_tok_s is None or one.latency_ms is None:
        return one
    errors = rng.normal(0.0, 1.0, 2) * np.array(half) / Z_95
    return replace(
        one,
        throughput_tok_s=max(one.throughput_tok_s + float(errors[0]), 1e-9),
        latency_ms=max(one.latency_ms + float(errors[1]), 1e-9),
    )
