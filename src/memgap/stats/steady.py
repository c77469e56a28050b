"""The steady part of a run, cut by rule: where it begins (MSER), where it ends, and how sure its throughput is.

A run begins with an empty server and ends with its last requests alone; averages over all of it mix these with the
state that the run was made for. The beginning is cut where the mean squared error of the rest's mean is least (MSER-5,
White 1997) on a series of 100 equal slices; the end where the load could no longer be held up.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from memgap.load.latency import itl_s
from memgap.load.records import Arrival, LoadResult, TokenEvents
from memgap.stats.student import t_975
from memgap.telemetry.window import Row, time_weighted_mean

SLICES = 100
BATCHES = 10
LEAST_SHARE = 0.2
"""A steady part shorter than this share of the window is none: the run was too short."""
DRIFT_LIMIT = 0.05
"""Both halves of a steady run have throughputs within this share of each other."""
STEADY_COLUMNS = (
    "steady_start_s",
    "steady_end_s",
    "steady_share_fraction",
    "steady_output_throughput_tok_s",
    "steady_output_throughput_ci95_fraction",
    "steady_drift_fraction",
    "steady_itl_mean_ms",
    "steady_mean_running_reqs",
)

Series = NDArray[np.float64]


def mser(values: Series) -> int:
    """Return how many first values to drop, in fives: of the means of five, the d up to half of them with the least
    variance / (n - d).
    """
    means = values[: len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)
    if len(means) < 4:
        return 0
    scores = [float(np.var(means[cut:]) / (len(means) - cut)) for cut in range(len(means) // 2 + 1)]
    return 5 * int(np.argmin(scores))


def end_of_load_s(result: LoadResult, arrival: Arrival) -> float:
    """Return when the load could no longer be held up, in seconds since the window start.

    A closed loop: when its last request was sent. All at once: when the last request got its first token, since then
    none waits. An open loop: when its last request was due.
    """
    moments: Sequence[float | None]
    if arrival == "all-at-once":
        moments = [one.first_token_s for one in result.results]
    elif arrival == "closed":
        moments = [one.sent_s for one in result.results]
    else:
        moments = [one.intended_s for one in result.results]
    return max((moment for moment in moments if moment is not None), default=0.0)


def steady_summary(result: LoadResult, arrival: Arrival, rows: Sequence[Row]) -> dict[str, float]:
    """Return the columns of `STEADY_COLUMNS`; only the bounds and the share where the steady part is too short.

    `steady_output_throughput_ci95_fraction` is the half width of the 95 % interval by its mean, from 10 batch means;
    `steady_drift_fraction` the second half's throughput against the first's, minus 1.
    """
    end_s = min(end_of_load_s(result, arrival), result.duration_s)
    if end_s <= 0 or not len(result.events.time_s):
        return {}
    start_s = mser(_rate(result.events, 0.0, end_s, SLICES)) * end_s / SLICES
    share = (end_s - start_s) / result.duration_s
    found = {"steady_start_s": start_s, "steady_end_s": end_s, "steady_share_fraction": share}
    if share < LEAST_SHARE:
        return found
    batches = _rate(result.events, start_s, end_s, BATCHES)
    mean = float(batches.mean())
    if mean <= 0:
        return found
    first, second = batches[: BATCHES // 2].mean(), batches[BATCHES // 2 :].mean()
    found["steady_output_throughput_tok_s"] = mean
    found["steady_output_throughput_ci95_fraction"] = float(
        t_975(BATCHES - 1) * batches.std(ddof=1) / np.sqrt(BATCHES) / mean
    )
    found["steady_drift_fraction"] = float(second / first - 1) if first else 0.0
    gaps_s = itl_s(result.results, _between(result.events, start_s, end_s))
    if len(gaps_s):
        found["steady_itl_mean_ms"] = float(gaps_s.mean()) * 1e3
    inside = [{**row, "time_s": row["time_s"] - start_s} for row in rows]
    running = time_weighted_mean(inside, "num_requests_running", end_s - start_s)
    return found if running is None else {**found, "steady_mean_running_reqs": running}


def steady(summary: Mapping[str, float]) -> bool:
    """Whether a point reached a steady state: a long enough part, without drift."""
    drift = summary.get("steady_drift_fraction")
    return drift is not None and abs(drift) <= DRIFT_LIMIT


def _rate(events: TokenEvents, start_s: float, end_s: float, parts: int) -> Series:
    """Return the output tokens a second in equal slices."""
    counts, edges = np.histogram(events.time_s, bins=parts, range=(start_s, end_s), weights=events.tokens)
    rate: Series = counts / np.diff(edges)
    return rate


def _between(events: TokenEvents, start_s: float, end_s: float) -> TokenEvents:
    keep = (events.time_s >= start_s) & (events.time_s <= end_s)
    return TokenEvents(events.request[keep], events.time_s[keep], events.tokens[keep])
