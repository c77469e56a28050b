"""The verdict of an offline point by what its GPU showed: its batches have no client and no metrics page."""

from collections.abc import Mapping, Sequence
from typing import Any

from memgap.telemetry.window import maximum, time_weighted_mean
from memgap.verdict.evidence import Evidence, Reason
from memgap.verdict.judge import Verdict, worst
from memgap.verdict.server import foreign_processes, throttled

MACHINE = ("gpu_foreign_processes_max", "gpu_throttled_fraction", "gpu_sm_clock_mean_mhz")
"""What is sampled of the GPU while a batch runs."""
UNCLASSIFIED_SUSPECT = 0.05
"""With a larger share of kernel time in no class, the classes' shares are not those of the step."""
NOT_JUDGED = Reason(
    "not_judged",
    "unknown",
    0.0,
    0.0,
    "no verdict: neither clocks nor throttling nor other processes on the GPU are known of this point",
)


def machine_summary(rows: Sequence[Mapping[str, float]], duration_s: float, profiled: bool) -> dict[str, float]:
    """Return `MACHINE` of a batch, as far as it was sampled; `time_s` of the rows counts from the batch's begin.

    Other processes are also looked for in the nearest sample of a batch that ended between two. A profiler may lock
    the clocks, so that they are left out under one.
    """
    samples = [dict(row) for row in rows]
    inside = [row for row in samples if 0.0 <= row["time_s"] <= duration_s]
    nearest = min(samples, key=lambda row: abs(row["time_s"]), default=None)
    near = inside or [{**nearest, "time_s": 0.0}] if nearest is not None else []
    found = {
        "gpu_foreign_processes_max": maximum(near, "gpu_foreign_processes", duration_s),
        "gpu_throttled_fraction": time_weighted_mean(inside, "gpu_throttled", duration_s),
        "gpu_sm_clock_mean_mhz": None if profiled else time_weighted_mean(inside, "gpu_sm_clock_mhz", duration_s),
    }
    return {name: value for name, value in found.items() if value is not None}


def judge_batch(evidence: Evidence) -> Verdict:
    """Return the verdict of a measured offline point; None with a reason where nothing is known of its GPU."""
    clock_mhz = evidence.number("sm_clock_mean_mhz")
    if clock_mhz is not None:  # the device counters sample more often
        evidence = Evidence(
            evidence.record, {**evidence.summary, "gpu_sm_clock_mean_mhz": clock_mhz}, {}, evidence.hardware
        )
    if evidence.hardware.get("device") == "cuda" and all(evidence.number(name) is None for name in MACHINE):
        return Verdict(None, None, (NOT_JUDGED,))
    checks = (throttled, foreign_processes, unclassified)
    reasons = tuple(reason for reason in (check(evidence) for check in checks) if reason is not None)
    return Verdict(worst(reasons), None, reasons)


def unclassified(evidence: Evidence) -> Reason | None:
    """Judge how much of a traced step's kernel time is in no class."""
    share = evidence.number("unclassified_fraction")
    if share is None or share <= UNCLASSIFIED_SUSPECT:
        return None
    text = f"{share:.0%} of the kernel time is in no class; name the kernels in memgap.profiling.classes"
    return Reason("unclassified", "suspect", share, UNCLASSIFIED_SUSPECT, text)


def judged_again(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored offline point with the verdict of what is stored of it; one that failed as it is.

    Points recorded before offline points were judged say "valid" whatever was seen.
    """
    if point["status"] != "ok":
        return dict(point)
    verdict = judge_batch(Evidence(point["record"], point["summary"], {}, point["hardware"]))
    return {**point, "verdict": verdict.as_dict(), "flags": [one.check for one in verdict.reasons]}
