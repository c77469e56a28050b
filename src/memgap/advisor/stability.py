"""How sure B_opt is: the rule applied again to profiles drawn from the intervals of the measured one.

A cap with two to four repeats is drawn from Student's t around its means, one with five or more by resampling its
repeats, widened as its interval is; both keep the repeats' correlation of throughput and latency. Of a cap that was
measured once the throughput is drawn from the batch means within that run, and what has no interval stays as it is.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.advisor.bca import Decision, Profile, advise
from memgap.stats.intervals import LEAST_BOOTSTRAP, Z, expansion
from memgap.stats.series import BATCHES
from memgap.stats.student import t_975

DRAWS = 1000
SEED = 20250311
Pairs = NDArray[np.float64]


@dataclass(frozen=True)
class CapShare:
    """One cap over all draws: how often it was B_opt, and how often it kept both bounds."""

    batch_cap: int
    chosen_fraction: float
    feasible_fraction: float


@dataclass(frozen=True)
class Stability:
    """How often the draws decide as the measured profile does; `same_fraction` is None where no interval is known."""

    sentence: str
    same_fraction: float | None
    draws: int
    seed: int
    none_fraction: float | None = None
    caps: list[CapShare] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def stability(
    profile: Sequence[Profile], slo: Mapping[str, Any], epsilon: float, draws: int = DRAWS, seed: int = SEED
) -> Stability:
    """Return how stable B_opt is under the intervals of the profile; equal arguments give equal results.

    Draws with a negative throughput or latency are drawn again. Caps that are no candidates stay out of every draw.
    """
    profile = sorted(profile, key=lambda one: one.batch_cap)
    usable = _usable(profile)
    notes = _notes(usable)
    if not any(one.throughput_interval or one.latency_interval for one in usable):
        sentence = "How stable B_opt is cannot be said: no interval is known; measure three repeats or more."
        return Stability(sentence, None, 0, seed, notes=notes)
    measured = advise(profile, slo, epsilon).b_opt
    drawn = draws_of(profile, draws, seed)
    decisions = [advise([_drawn(one, drawn, i) for one in profile], slo, epsilon) for i in range(draws)]
    chosen = Counter(decision.b_opt for decision in decisions)
    feasible = Counter(one.batch_cap for decision in decisions for one in decision.candidates if one.feasible)
    return Stability(
        sentence=_sentence(measured, decisions, chosen, feasible),
        same_fraction=chosen[measured] / draws,
        draws=draws,
        seed=seed,
        none_fraction=chosen[None] / draws,
        caps=[CapShare(cap, chosen[cap] / draws, feasible[cap] / draws) for cap in drawn],
        notes=notes,
    )


def draws_of(profile: Sequence[Profile], draws: int = DRAWS, seed: int = SEED) -> dict[int, Pairs]:
    """Return draws of (throughput in tok/s, latency in ms) by cap, of shape (draws, 2); equal seeds, equal draws."""
    rng = np.random.default_rng(seed)
    return {one.batch_cap: _draw(one, draws, rng) for one in _usable(profile)}


def _usable(profile: Sequence[Profile]) -> list[Profile]:
    """Return the caps that the rule can judge, ascending."""
    usable = [one for one in profile if not one.excluded and one.throughput_tok_s and one.latency_ms is not None]
    return sorted(usable, key=lambda one: one.batch_cap)


def _drawn(one: Profile, drawn: Mapping[int, Pairs], number: int) -> Profile:
    if one.batch_cap not in drawn:
        return Profile(one.batch_cap, one.throughput_tok_s, one.latency_ms, one.excluded)
    throughput_tok_s, latency_ms = drawn[one.batch_cap][number].tolist()
    return Profile(one.batch_cap, throughput_tok_s, latency_ms)


def _draw(one: Profile, draws: int, rng: np.random.Generator) -> Pairs:
    """Return draws of (throughput in tok/s, latency in ms) of one cap, of shape (draws, 2), none of them negative."""
    middle = np.array([one.throughput_tok_s, one.latency_ms], dtype=np.float64)
    found = middle + _deviations(one, draws, rng)
    while (negative := (found < 0).any(axis=1)).any():
        found[negative] = middle + _deviations(one, int(negative.sum()), rng)
    return found


def _deviations(one: Profile, draws: int, rng: np.random.Generator) -> Pairs:
    count = len(one.runs)
    centred: Pairs = np.array(one.runs, dtype=np.float64).reshape(-1, 2)
    centred = centred - centred.mean(axis=0) if count else centred
    if count >= LEAST_BOOTSTRAP:
        resampled: Pairs = centred[rng.integers(0, count, (draws, count))].mean(axis=1)
        return resampled * expansion(count) / Z
    if count >= 2:
        normal: Pairs = rng.standard_normal((draws, count)) @ centred / math.sqrt(count * (count - 1))
        return normal / np.sqrt(rng.chisquare(count - 1, (draws, 1)) / (count - 1))
    exact: Pairs = np.zeros((draws, 2))
    if one.throughput_interval is not None:
        half = one.throughput_interval.high - (one.throughput_tok_s or 0.0)
        exact[:, 0] = rng.standard_t(BATCHES - 1, draws) * half / t_975(BATCHES - 1)
    return exact


def _sentence(
    measured: int | None, decisions: Sequence[Decision], chosen: Mapping[int | None, int], feasible: Mapping[int, int]
) -> str:
    draws = len(decisions)
    same = chosen.get(measured, 0)
    if same == draws:
        return f"B_opt = {_cap(measured)} in all of {draws:,} draws."
    others = [(cap, count) for cap, count in chosen.items() if cap != measured]
    others.sort(key=lambda one: (-one[1], one[0] or 0))
    rest = ", ".join(f"{_cap(cap)} in {_percent(count, draws)}" for cap, count in others)
    if len(others) == 1:
        rest = f"{_cap(others[0][0])} in the rest"
    found = f"B_opt = {_cap(measured)} in {_percent(same, draws)} of {draws:,} draws, {rest}"
    if measured is None:
        return f"{found}."
    kept = feasible.get(measured, 0)
    whys = []
    if kept < draws:
        whys.append(f"cap {measured} misses a bound in {_percent(draws - kept, draws)}")
    if same < kept:
        whys.append(f"another cap has more throughput in {_percent(kept - same, draws)}")
    return f"{found}: {' and '.join(whys)}."


def _notes(usable: Sequence[Profile]) -> list[str]:
    """Return what a reader of the stability has to know of the intervals behind it."""
    notes = []
    bare = [one.batch_cap for one in usable if not one.throughput_interval and not one.latency_interval]
    no_latency = [one.batch_cap for one in usable if one.throughput_interval and not one.latency_interval]
    twice = [one.batch_cap for one in usable if len(one.runs) == 2]
    if bare:
        notes.append(
            f"No interval is known of throughput and latency at {_caps(bare)}, measured once: they are taken as exact."
        )
    if no_latency:
        notes.append(
            f"At {_caps(no_latency)}, measured once, the throughput's interval is from within the run, without the "
            "differences between runs, and none is known of the latency: it is taken as exact."
        )
    if twice:
        notes.append(
            f"Two repeats at {_caps(twice)}: their intervals reach 12.7 standard errors to each side; with a third "
            "repeat it is 4.3."
        )
    return notes


def _caps(caps: Iterable[int]) -> str:
    return "cap " + ", ".join(map(str, caps))


def _cap(cap: int | None) -> str:
    return "none" if cap is None else str(cap)


def _percent(count: int, draws: int) -> str:
    return f"{100 * count / draws:.3g} %"
