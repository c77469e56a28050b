"""The search for B_opt that asks the twin: measure where the advisor's answer still depends on what was not measured.

The smallest cap and the one that the SLO is taken at are measured first. From then on every cap that was not measured
has the twin's prediction. The answer is taken twice, with these at the good ends of their intervals and at the bad
ones; where both name one cap that was measured, it is known, else a cap that they name is measured next.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from memgap.advisor.bca import Profile, advise
from memgap.advisor.search import Evidence, Summaries, first_caps, profile_of
from memgap.advisor.search import next_cap as by_bisection
from memgap.stats.averaging import STEADY, averaging_of
from memgap.twin.calibrate import calibrate
from memgap.twin.outcome import steady
from memgap.twin.predict import predict
from memgap.twin.stored import Observation, observation

THROUGHPUT = "total_throughput_tok_s"


def next_cap(
    caps: Sequence[int], known: Mapping[int, Summaries], advisor: Mapping[str, Any], evidence: Evidence
) -> int | None:
    """Return the cap to measure next, None when the answer is known. `evidence`: see memgap.advisor.search."""
    for cap in first_caps(caps, advisor["slo"]):
        if cap not in known:
            return cap
    if sum(bool(known[cap]) for cap in known) < 2:  # too little to calibrate from
        return by_bisection(caps, known, advisor)
    measured = {cap: profile_of(cap, known[cap], advisor["latency"]) for cap in caps if cap in known}
    predicted = _predicted(caps, known, advisor["latency"], evidence)
    answers = []
    for place in (0, 1):
        profile = [measured.get(cap) or predicted[cap][place] for cap in caps]
        answers.append(advise(profile, advisor["slo"], advisor["epsilon"]).b_opt)
    good, bad = answers
    if good == bad and (good is None or good in known):
        return None
    unknown = [cap for cap in (good, bad) if cap is not None and cap not in known]
    if unknown:
        return unknown[0]
    # both were measured, and differ by what lies between or beyond them
    return min((cap for cap in caps if cap not in known), key=lambda cap: abs(cap - (good or bad or cap)), default=None)


def _predicted(
    caps: Sequence[int], known: Mapping[int, Summaries], latency: str, evidence: Evidence
) -> dict[int, tuple[Profile, Profile]]:
    """Return each cap's profile at the good and at the bad ends of its intervals."""
    points = [_asked(key, record, summary) for cap in known for key, record, summary in evidence[cap] if summary]
    calibration = calibrate(points)
    found = {}
    for cap in caps:
        if cap in known:
            continue
        key, record, _ = evidence[cap][0]
        said = predict(calibration, _asked(key, record, {}))
        part = steady(said.run, cap) if any(averaging_of(one.summary) == STEADY for one in points) else {}
        throughput, delay = (said.values[name] for name in (THROUGHPUT, latency))
        faster = part.get(THROUGHPUT, throughput.value) / throughput.value
        quicker = part.get(latency, delay.value) / delay.value
        found[cap] = (
            Profile(cap, throughput.high * faster, delay.low * quicker),
            Profile(cap, throughput.low * faster, delay.high * quicker),
        )
    return found


def _asked(key: str, record: Mapping[str, Any], summary: Mapping[str, float]) -> Observation:
    """Return a point as the twin takes it: of a server that was not asked for its pool, and a GPU that is not known."""
    return observation({"key": key, "record": record, "engine": {}, "hardware": {}, "summary": summary})
