"""What was seen of a simulated run: the names and meanings of a measured point's summary."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from memgap.twin.simulate import Run, Steps

Array = NDArray[np.float64]

PERCENTILES: Mapping[str, float] = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_MOST_GAPS = 1500
_NORMAL = np.array([NormalDist().inv_cdf((place + 0.5) / 15) for place in range(15)])


def step_times_ms(steps: Steps) -> tuple[Array, Array]:
    """Return each step's duration and how many sequences got a token that had one before, shape (steps,)."""
    count = steps.count.astype(int)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(steps.first_ms, count) + place * np.repeat(steps.slope_ms, count), np.repeat(steps.decodes, count)


def percentiles(values: Array, weights: Array) -> dict[str, float]:
    """Return the values below which the shares of PERCENTILES of the weight lie."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    places = np.searchsorted(total, np.array(list(PERCENTILES.values())) * total[-1])
    found = values[order][np.minimum(places, len(values) - 1)]
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def _jittered(gaps: Array, weights: Array, jitter_ms: float) -> tuple[Array, Array]:
    """Return gaps spread by a normal distribution, which a few of its quantiles stand for."""
    if len(gaps) > _MOST_GAPS:  # as many that each stand for the same weight
        order = np.argsort(gaps)
        total = np.cumsum(weights[order])
        places = np.searchsorted(total, (np.arange(_MOST_GAPS) + 0.5) / _MOST_GAPS * total[-1])
        gaps, weights = gaps[order][places], np.ones(_MOST_GAPS)
    spread = np.maximum(gaps[:, None] + jitter_ms * _NORMAL, 0.0)
    return spread.ravel(), np.repeat(weights, len(_NORMAL))


def latencies_ms(run: Run) -> dict[str, Array]:
    """Return the times of the requests in ms: ttft, e2e, and tpot of those with more than one output token."""
    several = run.output_tokens > 1
    tpot = (run.last_ms - run.first_ms)[several] / (run.output_tokens[several] - 1)
    return {"ttft": run.first_ms - run.sent_ms, "e2e": run.last_ms - run.sent_ms, "tpot": tpot}


def summary(run: Run, jitter_ms: float = 0.0) -> dict[str, float]:
    """Return the run in the terms of a point's summary; latencies in ms, rates a second.

    `jitter_ms` is the standard deviation that messages to a client add to a gap between tokens.
    """
    span_s = float(run.last_ms.max() - run.sent_ms.min()) / 1e3
    steps = run.steps
    durations, weights = step_times_ms(steps)
    stretch_ms = steps.count * steps.first_ms + steps.slope_ms * steps.count * (steps.count - 1) / 2
    found = {
        "duration_s": span_s,
        "output_throughput_tok_s": float(run.output_tokens.sum()) / span_s,
        "total_throughput_tok_s": float(run.output_tokens.sum() + run.prompt_tokens.sum()) / span_s,
        "request_throughput_req_s": len(run.last_ms) / span_s,
        "preemptions": float(run.preemptions),
        "prefix_cache_hits": float(run.prefix_hits),
        "max_running_reqs": float(steps.running.max()),
        "kv_cache_usage_max_fraction": float(steps.kv.max()),
    }
    for name, values in (
        ("mean_running_reqs", steps.running),
        ("mean_waiting_reqs", steps.waiting),
        ("kv_cache_usage_mean_fraction", steps.kv),
    ):
        found[name] = float((values * stretch_ms).sum() / (1e3 * span_s))
    gaps = np.concatenate([durations[weights > 0], run.gaps_ms])
    weights = np.concatenate([weights[weights > 0], np.ones(len(run.gaps_ms))])
    if len(gaps):
        found["itl_mean_ms"] = float((gaps * weights).sum() / weights.sum())
        said = percentiles(*_jittered(gaps, weights, jitter_ms))
        found |= {f"itl_{name}_ms": value for name, value in said.items()}
    for latency, values in latencies_ms(run).items():
        if len(values):
            found[f"{latency}_mean_ms"] = float(values.mean())
            found |= {f"{latency}_{name}_ms": float(np.quantile(values, at)) for name, at in PERCENTILES.items()}
    return found


def steady(run: Run, seats: int) -> dict[str, float]:
    """Return throughput and mean ITL of a closed loop's steady part: from when as many requests have ended as there
    are seats until the last one is sent. Empty where there is no such part.
    """
    start, end = float(np.sort(run.last_ms)[min(seats, len(run.last_ms)) - 1]), float(run.sent_ms.max())
    if end - start < 0.2 * (run.last_ms.max() - run.sent_ms.min()):
        return {}
    durations, tokens = step_times_ms(run.steps)
    count = run.steps.count.astype(int)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    first, slope = (np.repeat(one, count) for one in (run.steps.first_ms, run.steps.slope_ms))
    ends = np.repeat(run.steps.start_ms, count) + (place + 1) * first + slope * place * (place + 1) / 2
    inside = (ends > start) & (ends <= end) & (tokens > 0)
    firsts = ((run.first_ms > start) & (run.first_ms <= end)).sum()
    rate = float(tokens[inside].sum() + firsts) / (end - start) * 1e3
    return {
        "output_throughput_tok_s": rate,
        "total_throughput_tok_s": rate * float(1 + run.prompt_tokens.sum() / run.output_tokens.sum()),
        "itl_mean_ms": float((durations * tokens)[inside].sum() / tokens[inside].sum()),
    }
