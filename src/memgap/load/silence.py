"""Silences of a server as the client saw them: time in which no token came although requests were being answered."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memgap.load.latency import itl_chunk_s
from memgap.load.records import LoadResult, RequestResult

LEAST_S, LEAST_PREFILL_S = 0.5, 1.0
"""Shorter silences are none; the second where a request waited for its first token meanwhile."""
TIMES_USUAL = 5.0
"""A silence is longer than so many times the 99th percentile of gaps between chunks."""
TIMES_PREFILL = 3.0
"""Where requests wait for their first token it is also longer than so many times what prompts like theirs take."""
AT_ITS_END_S = 0.1
"""First tokens so soon after a silence are of prompts that were read in it."""
CLIENT_SHARE = 0.5
"""A silence is the client's own where the client itself stood still for such a share of it."""

Array = NDArray[np.float64]


def silence_summary(result: LoadResult) -> dict[str, float]:
    """Return `silence_max_s`, the longest silence of the server that nothing explains, and `silence_bound_s`, what it
    is longer than; empty without one, and where replies are no streams.

    Requests whose prompts are being read explain a silence as long as prompts of their length usually take. A silence
    in which the client stood still is not the server's.
    """
    if all(one.first_token_s is None for one in result.results):
        return {}
    times_s = np.unique(result.events.time_s)
    gaps_s = np.diff(times_s)
    long = np.flatnonzero(gaps_s > LEAST_S)
    if not len(long):
        return {}
    usual_s = TIMES_USUAL * _percentile(itl_chunk_s(result.results, result.events), 99)
    own_s = result.health.loop_lag_max_ms / 1e3
    rate_s = _prefill_s_per_token(result.results)
    spans = _spans(result.results)
    for place in long[np.argsort(-gaps_s[long])].tolist():
        start_s, end_s = float(times_s[place]), float(times_s[place + 1])
        if own_s >= CLIENT_SHARE * (end_s - start_s):
            continue
        silent_s, bound_s = _silence_s(spans, start_s, end_s, usual_s, rate_s)
        if silent_s > bound_s:
            return {"silence_max_s": silent_s, "silence_bound_s": bound_s}
    return {}


def _spans(results: Sequence[RequestResult]) -> Array:
    """Return one row a request that was sent: send, first token (or end), end of the output (or attempt), prompt
    tokens."""
    rows = [
        (
            one.sent_s,
            one.end_s if one.first_token_s is None else one.first_token_s,
            one.end_s if one.last_token_s is None else one.last_token_s,
            float(one.prompt_tokens),
        )
        for one in results
        if one.sent_s is not None and one.end_s is not None
    ]
    return np.asarray(rows, dtype=np.float64).reshape(-1, 4)


def _silence_s(spans: Array, start_s: float, end_s: float, usual_s: float, rate_s: float) -> tuple[float, float]:
    """Return how long requests got no token between two moments, and how long that may be, in seconds."""
    sent, first, last, prompt = spans.T
    # what was being read in the silence has its first token at its end; what comes later stood in a queue
    waiting = (sent < end_s) & (first >= end_s) & (first <= end_s + AT_ITS_END_S)
    answered = ((first <= start_s) & (last >= end_s)).any()
    if not waiting.any():
        return (end_s - start_s if answered else 0.0), max(LEAST_S, usual_s)
    began_s = start_s if answered else max(start_s, float(sent[waiting].min()))
    return end_s - began_s, max(LEAST_PREFILL_S, usual_s, TIMES_PREFILL * rate_s * float(prompt[waiting].sum()))


def _prefill_s_per_token(results: Sequence[RequestResult]) -> float:
    """Return the median time to first token by prompt token."""
    rates = [
        (one.first_token_s - one.sent_s) / (one.prompt_tokens or 1)
        for one in results
        if one.first_token_s is not None and one.sent_s is not None
    ]
    return _percentile(np.asarray(rates), 50)


def _percentile(values: Array, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0
