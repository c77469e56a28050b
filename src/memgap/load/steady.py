"""The steady part of a run, cut by rule: where it begins, where it ends, and what was measured in it.

A run begins with an empty server and ends with its last requests alone; averages over all of it mix these with the
state that the run was made for, the more so the fewer requests it has. So throughputs and latencies of the steady part
stand beside those of the whole window.

It begins where the mean squared error of the rest's mean is least (MSER-5, White 1997) on a series of 100 equal slices,
and with a fixed number of seats not before as many requests have ended as there are seats: the first generation of
requests begins at one moment, so that at first all sequences are short and only the shortest end. It ends where the
load could no longer be held up.

A value belongs to it by the moment at which it is complete: a time to first token by the first token, a gap between
tokens by its end, what is of a whole request by the last token.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from memgap.load.latency import LATENCY_STATISTICS, Timed, statistics_ms, timed_latencies
from memgap.load.records import Arrival, LoadResult, RequestResult, TokenEvents
from memgap.stats.averaging import LEAST_SHARE
from memgap.stats.series import BATCHES, SLICES, Series, half_width_fraction, mser
from memgap.telemetry.window import Row, time_weighted_mean

DRIFT_LIMIT = 0.05
"""Both halves of a steady run have throughputs within this share of each other."""
LATENCIES = ("ttft", "tpot", "itl", "e2e", "normalized_latency", "itl_chunk", "ttft_text", "ttft_answer")
WITH_INTERVALS: Mapping[str, float] = {"mean": 0.0, "median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
"""Statistics that have an interval, with their percentile (0: the mean)."""
LEAST_BEYOND = 5
"""A batch's percentile needs so many values beyond it."""
GAUGES = {
    "steady_mean_running_reqs": "num_requests_running",
    "steady_mean_waiting_reqs": "num_requests_waiting",
    "steady_kv_cache_usage_mean_fraction": "kv_cache_usage_fraction",
    "steady_gpu_power_mean_w": "gpu_power_w",
}
STEADY_COLUMNS = (
    "steady_start_s",
    "steady_end_s",
    "steady_share_fraction",
    "seats_taken_fraction",
    "window_seats_taken_fraction",
    "steady_output_throughput_tok_s",
    "steady_output_throughput_ci95_fraction",
    "steady_total_throughput_tok_s",
    "steady_request_throughput_req_s",
    "steady_drift_fraction",
    *GAUGES,
    *(f"steady_{name}_{statistic}_ms" for name in LATENCIES for statistic in LATENCY_STATISTICS),
    *(f"steady_{name}_{statistic}_ci95_fraction" for name in LATENCIES for statistic in WITH_INTERVALS),
)


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


def steady_summary(
    result: LoadResult, arrival: Arrival, rows: Sequence[Row], seats: int | None = None
) -> dict[str, float]:
    """Return those of `STEADY_COLUMNS` that have a value; of the steady part only its bounds where it is too short.

    `seats` is how many requests are in the engine at a time: a closed loop's concurrency, or the server's cap where all
    is sent at once; None where nothing bounds them. A `_ci95_fraction` is the half width of the 95 % interval by its
    value, from 10 batches; `steady_drift_fraction` the second half's throughput against the first's, minus 1.
    `steady_total_throughput_tok_s` adds as many prompt tokens to each output token as the completed requests of the
    whole run have. `seats_taken_fraction` is the mean share of a closed loop's seats with a request in flight: in the
    steady part, or in the whole window where there is none.
    """
    closed = arrival == "closed" and seats is not None
    taken = (
        {"window_seats_taken_fraction": seats_taken(result.results, seats, 0.0, result.duration_s)} if closed else {}
    )
    found = _throughputs(result, arrival, seats)
    if "steady_output_throughput_tok_s" not in found:
        whole = {"seats_taken_fraction": taken["window_seats_taken_fraction"]} if closed else {}
        return {**found, **taken, **whole}
    start_s, end_s = found["steady_start_s"], found["steady_end_s"]
    if closed:
        taken["seats_taken_fraction"] = seats_taken(result.results, seats, start_s, end_s)
    inside = [{**row, "time_s": row["time_s"] - start_s} for row in rows]
    gauges = {name: time_weighted_mean(inside, column, end_s - start_s) for name, column in GAUGES.items()}
    for name, values in timed_latencies(result).items():
        found |= _latency(f"steady_{name}", values, start_s, end_s)
    return {**found, **taken, **{name: value for name, value in gauges.items() if value is not None}}


def seats_taken(results: Sequence[RequestResult], seats: int | None, start_s: float, end_s: float) -> float:
    """Return the mean share of `seats` with a request in flight between two moments."""
    if not seats or end_s <= start_s:
        return 0.0
    spans = [
        min(one.end_s, end_s) - max(one.sent_s, start_s)
        for one in results
        if one.sent_s is not None and one.end_s is not None
    ]
    return float(sum(span for span in spans if span > 0) / (end_s - start_s) / seats)


def _throughputs(result: LoadResult, arrival: Arrival, seats: int | None) -> dict[str, float]:
    """Return the bounds of the steady part, and its throughputs where it is long enough."""
    end_s = min(end_of_load_s(result, arrival), result.duration_s)
    if end_s <= 0 or not len(result.events.time_s):
        return {}
    start_s = mser(_rate(result.events, 0.0, end_s, SLICES)) * end_s / SLICES
    start_s = min(max(start_s, _turnover_s(result.results, seats)), end_s)
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
    found["steady_output_throughput_ci95_fraction"] = half_width_fraction(batches)
    found["steady_drift_fraction"] = float(second / first - 1) if first else 0.0
    completed = [one for one in result.results if one.status == "ok"]
    output = sum(one.output_tokens for one in completed)
    if output:
        prompt = sum(one.prompt_tokens for one in completed)
        found["steady_total_throughput_tok_s"] = mean * (1 + prompt / output)
        found["steady_request_throughput_req_s"] = mean * len(completed) / output
    return found


def _turnover_s(results: Sequence[RequestResult], seats: int | None) -> float:
    """Return when as many requests had ended as there are seats, in seconds; 0 without seats."""
    if seats is None:
        return 0.0
    ends_s = sorted(one.end_s for one in results if one.end_s is not None)
    return ends_s[min(seats, len(ends_s)) - 1] if ends_s else 0.0


def _latency(name: str, latencies: Timed, start_s: float, end_s: float) -> dict[str, float]:
    """Return the statistics of the values that were complete in the steady part, with intervals."""
    keep = (latencies.at_s >= start_s) & (latencies.at_s <= end_s)
    at_s, spans_s = latencies.at_s[keep], latencies.values_s[keep]
    found = statistics_ms(name, spans_s)
    batch = np.minimum(((at_s - start_s) / (end_s - start_s) * BATCHES).astype(np.int64), BATCHES - 1)
    parts = [spans_s[batch == number] for number in range(BATCHES)]
    least = min(len(part) for part in parts)
    for statistic, percent in WITH_INTERVALS.items():
        if least and (not percent or least * (100 - percent) / 100 >= LEAST_BEYOND):
            values = [part.mean() if not percent else np.percentile(part, percent) for part in parts]
            half = half_width_fraction(np.asarray(values, dtype=np.float64))
            if np.isfinite(half):
                found[f"{name}_{statistic}_ci95_fraction"] = half
    return found


def steady(summary: Mapping[str, float]) -> bool:
    """Whether a point reached a steady state: a long enough part, without drift."""
    drift = summary.get("steady_drift_fraction")
    return drift is not None and abs(drift) <= DRIFT_LIMIT


def _rate(events: TokenEvents, start_s: float, end_s: float, parts: int) -> Series:
    """Return the output tokens a second in equal slices.

    The tokens of an event were made since the event before of their request: they count evenly over that time, so that
    no step more or less than a slice has falls into it. First tokens count when they came.
    """
    edges = np.linspace(start_s, end_s, parts + 1)
    stream, time_s, tokens = events.stream, events.time_s, events.tokens
    follows = stream[1:] == stream[:-1]
    since_s, until_s, made = time_s[:-1][follows], time_s[1:][follows], tokens[1:][follows]
    order = np.argsort(time_s, kind="stable")
    came = np.concatenate([[0], np.cumsum(tokens[order])])
    so_far = came[np.searchsorted(time_s[order], edges, side="right")].astype(np.float64)
    for place, edge_s in enumerate(edges):
        under_way = (since_s < edge_s) & (until_s > edge_s)
        begun_s, ends_s = since_s[under_way], until_s[under_way]
        so_far[place] += float((made[under_way] * (edge_s - begun_s) / (ends_s - begun_s)).sum())
    rate: Series = np.diff(so_far) / np.diff(edges)
    return rate
