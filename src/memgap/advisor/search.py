"""The search for B_opt: which cap to measure next so that the advisor's answer is that of the full grid.

Latency grows and the gain falls with the cap, so the caps that keep both bounds are the small ones. Their largest is
found by bisection; from there the throughput is followed downwards to its top. Sessions search while they measure, so
nothing here needs pandas.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from memgap.advisor.bca import Profile, advise

Summaries = Sequence[Mapping[str, float]]
"""Of a cap's good repeats, with the values that count (`memgap.stats.averaging.chosen`); empty where none is."""
Evidence = Mapping[int, Sequence[tuple[str, Mapping[str, Any], Mapping[str, float]]]]
"""The points of each cap: key, record, and the summary as it was measured, empty where it was not or is no good."""


def first_caps(caps: Sequence[int], slo: Mapping[str, Any]) -> list[int]:
    """Return the caps that any answer depends on: the smallest one, and that which the SLO is a multiple of."""
    if "multiple" not in slo:
        return [caps[0]]
    reference = int(slo.get("times_latency_at", 32))
    return [caps[0], min(caps, key=lambda cap: (max(cap / reference, reference / cap), cap))]


def next_cap(
    caps: Sequence[int], known: Mapping[int, Summaries], advisor: Mapping[str, Any], evidence: Evidence | None = None
) -> int | None:
    """Return the cap to measure next for B_opt, None when the answer is known. `caps` in ascending order."""
    profile = {cap: profile_of(cap, known[cap], advisor["latency"]) for cap in caps if cap in known}
    for cap in first_caps(caps, advisor["slo"]):
        if cap not in profile:
            return cap
    decision = advise(list(profile.values()), advisor["slo"], advisor["epsilon"])
    feasible = {one.batch_cap: one.feasible for one in decision.candidates}
    below, above = -1, len(caps)
    for place, cap in enumerate(caps):
        if cap in feasible and not feasible[cap]:
            above = place
            break
        if cap in feasible:
            below = place
    if above - below > 1:
        return caps[(below + above) // 2]
    place = below
    while place > 0:
        here, lower = profile[caps[place]], profile.get(caps[place - 1])
        if lower is None:
            return caps[place - 1]
        if (lower.throughput_tok_s or 0.0) <= (here.throughput_tok_s or 0.0):
            break
        place -= 1
    return None


def profile_of(cap: int, summaries: Summaries, latency: str) -> Profile:
    """Return the advisor's entry of a cap: medians over its repeats, latency as the summary calls it."""
    throughputs = [one["total_throughput_tok_s"] for one in summaries if "total_throughput_tok_s" in one]
    latencies = [one[latency] for one in summaries if latency in one]
    if not throughputs or not latencies:
        return Profile(cap, None, None, "not measured")
    return Profile(cap, statistics.median(throughputs), statistics.median(latencies))


def _by_the_twin(
    caps: Sequence[int], known: Mapping[int, Summaries], advisor: Mapping[str, Any], evidence: Evidence
) -> int | None:
    from memgap.advisor.twin_search import next_cap as following  # which needs numpy, and others do not

    return following(caps, known, advisor, evidence)


SEARCHES = {"b_opt": next_cap, "twin": _by_the_twin}
"""By the name that a sweep's `stop.search` gives."""
