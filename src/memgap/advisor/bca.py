"""B_opt = argmax_B T(B) subject to L(B) <= SLO and T(B) / (B T(1)) > epsilon.

T is the total token throughput (prompt + output, tok/s), L the chosen latency (ms). Source: arXiv 2503.08311, the
batching configuration advisor. Its published scripts take the largest such cap instead of the argmax and admit
preempted runs; here preempted and failed points are no candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memgap.errors import UserError
from memgap.stats.intervals import Interval, named_sources


@dataclass(frozen=True)
class Profile:
    """One cap of a profile: throughput in tok/s, the chosen latency in ms, and why it is no candidate, if so.

    `runs` holds both of each repeat whose means they are; the intervals are None where none is known.
    """

    batch_cap: int
    throughput_tok_s: float | None
    latency_ms: float | None
    excluded: str = ""
    runs: tuple[tuple[float, float], ...] = ()
    throughput_interval: Interval | None = None
    latency_interval: Interval | None = None


@dataclass(frozen=True)
class Candidate:
    """One cap with its verdict: `gain_ratio` is T(B) / (B T(1)); `reason` is empty where it is feasible.

    `_low` and `_high` are the bounds of the 95 % intervals, None where none is known.
    """

    batch_cap: int
    repeats: int
    throughput_tok_s: float | None
    throughput_tok_s_low: float | None
    throughput_tok_s_high: float | None
    latency_ms: float | None
    latency_ms_low: float | None
    latency_ms_high: float | None
    interval_source: str
    gain_ratio: float | None
    feasible: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """The advice: `b_opt` is None where nothing fits, and `sentence` says what was decided or why nothing fits."""

    b_opt: int | None
    slo_ms: float | None
    slo_source: str
    epsilon: float
    base_throughput_tok_s: float | None
    candidates: list[Candidate]
    sentence: str
    notes: list[str] = field(default_factory=list)


def slo_bound_ms(profile: Sequence[Profile], slo: Mapping[str, Any]) -> tuple[float, str]:
    """Return the bound in ms and how it came about.

    `slo` is {"ms": x}, or {"multiple": m, "times_latency_at": B}: m times the latency of the measured cap nearest to B
    (by ratio, the smaller one of a tie). Raises UserError where no cap was measured.
    """
    if "ms" in slo:
        return float(slo["ms"]), f"{slo['ms']:g} ms, as configured"
    wanted = int(slo.get("times_latency_at", 32))
    usable = [one for one in profile if not one.excluded and one.latency_ms is not None]
    if not usable:
        raise UserError("advisor: no cap was measured, so there is no latency to take a multiple of.")
    nearest = min(usable, key=lambda one: (max(one.batch_cap / wanted, wanted / one.batch_cap), one.batch_cap))
    assert nearest.latency_ms is not None
    source = f"{slo['multiple']:g} x the latency at cap {nearest.batch_cap} ({nearest.latency_ms:.2f} ms)"
    if nearest.batch_cap != wanted:
        source += f", the measured cap nearest to {wanted}"
    return float(slo["multiple"]) * nearest.latency_ms, source


def advise(profile: Sequence[Profile], slo: Mapping[str, Any], epsilon: float) -> Decision:
    """Decide B_opt for one model's profile (one entry a cap)."""
    profile = sorted(profile, key=lambda one: one.batch_cap)
    usable = [one for one in profile if not one.excluded and one.throughput_tok_s and one.latency_ms is not None]
    if not usable:
        reasons = "; ".join(f"cap {one.batch_cap}: {one.excluded or 'no throughput'}" for one in profile)
        candidates = [_excluded(one) for one in profile]
        return Decision(
            None, None, "", epsilon, None, candidates, f"No cap can be judged ({reasons or 'none measured'})."
        )
    base, notes = _base_throughput(usable)
    bound_ms, source = slo_bound_ms(usable, slo)
    candidates = [_judge(one, base, bound_ms, epsilon) if one in usable else _excluded(one) for one in profile]
    feasible = [one for one in candidates if one.feasible]
    if not feasible:
        return Decision(
            None, bound_ms, source, epsilon, base, candidates, _why_nothing(candidates, bound_ms, epsilon), notes
        )
    best = max(feasible, key=lambda one: (one.throughput_tok_s or 0.0, -one.batch_cap))
    most = max(one.throughput_tok_s or 0.0 for one in usable)
    share = (best.throughput_tok_s or 0.0) / most
    sentence = (
        f"Run with a batch cap of {best.batch_cap}: {best.throughput_tok_s:.0f} tok/s, {share:.0%} of the highest "
        f"measured throughput, at {best.latency_ms:.1f} ms (bound {bound_ms:.1f} ms)."
    )
    return Decision(best.batch_cap, bound_ms, source, epsilon, base, candidates, sentence, notes)


def _base_throughput(usable: Sequence[Profile]) -> tuple[float, list[str]]:
    """Return T(1) in tok/s, from the smallest measured cap where 1 is not among them."""
    smallest = usable[0]
    assert smallest.throughput_tok_s is not None
    base = smallest.throughput_tok_s / smallest.batch_cap
    if smallest.batch_cap == 1:
        return base, []
    return base, [f"Cap 1 was not measured; T(1) is taken as T({smallest.batch_cap}) / {smallest.batch_cap}."]


def _judge(one: Profile, base: float, bound_ms: float, epsilon: float) -> Candidate:
    assert one.throughput_tok_s is not None and one.latency_ms is not None
    ratio = one.throughput_tok_s / (one.batch_cap * base)
    reasons = []
    if one.latency_ms > bound_ms:
        reasons.append(f"latency {one.latency_ms:.1f} ms is above {bound_ms:.1f} ms")
    if ratio <= epsilon:
        reasons.append(f"gain {ratio:.3f} is not above {epsilon:g}")
    return _candidate(one, ratio, "; ".join(reasons))


def _excluded(one: Profile) -> Candidate:
    return _candidate(one, None, one.excluded or "no throughput was measured")


def _candidate(one: Profile, gain_ratio: float | None, reason: str) -> Candidate:
    throughput, latency = one.throughput_interval, one.latency_interval
    return Candidate(
        batch_cap=one.batch_cap,
        repeats=len(one.runs),
        throughput_tok_s=one.throughput_tok_s,
        throughput_tok_s_low=throughput.low if throughput else None,
        throughput_tok_s_high=throughput.high if throughput else None,
        latency_ms=one.latency_ms,
        latency_ms_low=latency.low if latency else None,
        latency_ms_high=latency.high if latency else None,
        interval_source=named_sources({"throughput": throughput, "latency": latency}),
        gain_ratio=gain_ratio,
        feasible=not reason,
        reason=reason,
    )


def _why_nothing(candidates: Sequence[Candidate], bound_ms: float, epsilon: float) -> str:
    judged = [one for one in candidates if one.gain_ratio is not None]
    in_time = [one for one in judged if one.latency_ms is not None and one.latency_ms <= bound_ms]
    if not in_time:
        fastest = min(judged, key=lambda one: one.latency_ms or 0.0)
        return (
            f"No cap meets the latency bound of {bound_ms:.1f} ms: the lowest latency is {fastest.latency_ms:.1f} ms "
            f"at cap {fastest.batch_cap}; an SLO of at least {fastest.latency_ms:.1f} ms would admit it."
        )
    best = max(in_time, key=lambda one: one.gain_ratio or 0.0)
    return (
        f"No cap within {bound_ms:.1f} ms gains more than epsilon = {epsilon:g}: the best is {best.gain_ratio:.3f} "
        f"at cap {best.batch_cap}; an epsilon below that would admit it."
    )
