"""Which points of a sweep need not be measured, by what the others have shown, and which one comes next.

Three rules, each within a *group*: the points of a session that differ in batch cap and repeat only.

- `repeats`: a cap's further repeats are spared once the interval of its throughput is narrow enough.
- `after_preemption`: caps above one that preempted, or did not fit at all, are spared.
- `search`: a search names one cap after another; it is given by the caller, so that this module needs no advisor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgap.canonical import content_key
from memgap.stats.averaging import STEADY, TOTAL, chosen, value
from memgap.stats.student import half_width

Points = Sequence[Mapping[str, Any]]
"""Of a session plan: {"key", "record"} in the order of measurement."""
Summaries = Sequence[Mapping[str, float]]
"""Of a cap's good repeats; empty where none is."""
Evidence = Mapping[int, Sequence[tuple[str, Mapping[str, Any], Mapping[str, float]]]]
"""The points of each cap: key, record, and the summary as it was measured, empty where it was not or is no good."""
Search = Callable[[Sequence[int], Mapping[int, Summaries], Mapping[str, Any], Evidence], int | None]
"""Takes the caps in ascending order, what is known of them, the rule's settings and the points; returns the cap to
measure next, None when the answer is known."""


@dataclass(frozen=True)
class Seen:
    """What a stored point showed: is it good (measured, believed, not preempted), T in tok/s, its summary."""

    status: str
    good: bool
    preempted: bool
    summary: Mapping[str, float]

    @staticmethod
    def of(point: Mapping[str, Any]) -> "Seen":
        """Read a point.json."""
        preempted = "preempted" in point["flags"]
        invalid = point.get("verdict", {}).get("verdict") == "invalid"
        good = point["status"] == "ok" and not preempted and not invalid
        return Seen(point["status"], good, preempted, point["summary"])

    def throughput_tok_s(self, averaging: str) -> float | None:
        """Throughput of prompt and output tokens, of the steady part or the window."""
        return value(self.summary, TOTAL, averaging)


@dataclass
class Choice:
    """Keys to measure, in order, and those that are spared, each with the reason."""

    wanted: list[str]
    spared: dict[str, str]


def choose(
    points: Points, rules: Sequence[Mapping[str, Any]], seen: Mapping[str, Seen], searches: Mapping[str, Search]
) -> Choice:
    """Return what is wanted now of the points that are not in `seen`.

    `rules` are the session plan's: {"points": keys of a sweep, "stop": its rules, "advisor": settings of the search,
    "averaging": see `memgap.stats.averaging`}; a point of several sweeps is wanted when one of them wants it. Deferred
    points are in neither part. `searches` has the searches by the name that a rule gives.
    """
    open_keys = [point["key"] for point in points if point["key"] not in seen]
    wanted, spared = set(), dict[str, list[str]]()
    ruled = {key for rule in rules for key in rule["points"]}
    wanted |= set(open_keys) - ruled
    for rule in rules:
        members = [point for point in points if point["key"] in set(rule["points"])]
        for group in _groups(members):
            choice = _choose_in_group(group, rule, seen, searches)
            wanted |= set(choice.wanted)
            for key, reason in choice.spared.items():
                spared.setdefault(key, []).append(reason)
    sparing = {key: sum(key in rule["points"] for rule in rules) for key in spared}
    return Choice(
        [key for key in open_keys if key in wanted],
        {key: why[0] for key, why in spared.items() if len(why) == sparing[key] and key not in wanted},
    )


def _groups(points: Points) -> list[Points]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        record = point["record"]
        sized = ("requests", "concurrency", "warmup_requests", "min_requests")
        load = {name: value for name, value in record["load"].items() if name not in sized}
        rest = {name: value for name, value in record.items() if name not in ("batch_cap", "repeat", "load")}
        groups.setdefault(content_key({**rest, "load": load}), []).append(point)
    return list(groups.values())


def _choose_in_group(
    group: Points, rule: Mapping[str, Any], seen: Mapping[str, Seen], searches: Mapping[str, Search]
) -> Choice:
    caps: dict[int, list[str]] = {}
    for point in sorted(group, key=lambda one: (one["record"]["batch_cap"], one["record"]["repeat"])):
        caps.setdefault(point["record"]["batch_cap"], []).append(point["key"])
    stop, averaging = rule["stop"], rule.get("averaging", STEADY)
    spared: dict[str, str] = {}
    if "repeats" in stop:
        for keys in caps.values():
            spared.update(_spared_repeats(keys, stop["repeats"], seen, averaging))
    if stop.get("after_preemption"):
        spared.update(_spared_by_preemption(caps, seen))
    open_keys = [key for keys in caps.values() for key in keys if key not in seen and key not in spared]
    if stop.get("search", "none") == "none":
        return Choice(open_keys, spared)
    known = {cap: _summaries(keys, seen, averaging) for cap, keys in caps.items() if not set(keys) & set(open_keys)}
    cap = searches[stop["search"]](sorted(caps), known, rule["advisor"], _evidence(group, seen))
    if cap is None:
        why = "the advisor's answer does not depend on it"
        return Choice([], {**dict.fromkeys(open_keys, why), **spared})
    return Choice([key for key in caps[cap] if key in open_keys], spared)


def _evidence(group: Points, seen: Mapping[str, Seen]) -> Evidence:
    found: dict[int, list[tuple[str, Mapping[str, Any], Mapping[str, float]]]] = {}
    for point in group:
        one = seen.get(point["key"])
        summary = one.summary if one is not None and one.good else {}
        found.setdefault(point["record"]["batch_cap"], []).append((point["key"], point["record"], summary))
    return found


def _spared_repeats(
    keys: Sequence[str], bound: Mapping[str, Any], seen: Mapping[str, Seen], averaging: str
) -> dict[str, str]:
    values = [one.throughput_tok_s(averaging) for key in keys if (one := seen.get(key)) is not None and one.good]
    known = [value for value in values if value is not None]
    if len(known) < int(bound["least"]):
        return {}
    half = half_width(known) / (sum(known) / len(known))
    if half > float(bound["interval_fraction"]):
        return {}
    why = f"{len(known)} repeats give the throughput to +-{half:.1%}, {bound['interval_fraction']:.1%} is asked for"
    return {key: why for key in keys if key not in seen}


def _spared_by_preemption(caps: Mapping[int, Sequence[str]], seen: Mapping[str, Seen]) -> dict[str, str]:
    for cap, keys in caps.items():
        shown = [seen[key] for key in keys if key in seen]
        if any(one.preempted or one.status == "oom" for one in shown):
            why = f"cap {cap} does not fit into the KV cache"
            return {key: why for larger, others in caps.items() if larger >= cap for key in others if key not in seen}
    return {}


def _summaries(keys: Sequence[str], seen: Mapping[str, Seen], averaging: str) -> Summaries:
    return [chosen(seen[key].summary, averaging) for key in keys if key in seen and seen[key].good]
