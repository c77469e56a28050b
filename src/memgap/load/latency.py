"""Latency and throughput from results and token events; pure functions.

Times count from the real send (`sent_s`), with `_intended` in the name from the intended one. Only requests
with status ok enter; what failed is counted and its tokens are left out of every throughput.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgap.load.records import CUT, ENDED, LoadResult, RequestResult, TokenEvents

Array = NDArray[np.float64]

LATENCY_STATISTICS = ("mean", "median", "std", "p90", "p95", "p99", "p999")
_FEW_STATISTICS = ("mean", "median", "p99")


def ttft_s(results: Sequence[RequestResult], intended: bool = False) -> Array:
    """Return the time to first token of each completed request in seconds: first token minus send.

    `intended`: from the intended send time instead, for requests that have one.
    """
    return _since_send([r.first_token_s for r in results], results, intended)


def ttft_text_s(results: Sequence[RequestResult]) -> Array:
    """Return the time to first text of each completed request that has one, in seconds: first visible text minus send.

    It differs from the time to first token where the first tokens are none that a user sees: special ones, halves of
    characters.
    """
    return _since_send([r.first_text_s for r in results], results, intended=False)


def ttft_answer_s(results: Sequence[RequestResult]) -> Array:
    """Return the time to the first text that is no reasoning of each completed request that has one, in seconds.

    Empty where no request has reasoning before its answer, or instead of it.
    """
    reasoned = any(r.first_text_s is not None and r.first_answer_s != r.first_text_s for r in results)
    return _since_send([r.first_answer_s if reasoned else None for r in results], results, intended=False)


def e2e_s(results: Sequence[RequestResult], intended: bool = False) -> Array:
    """Return the end-to-end latency of each completed request in seconds: last token minus send."""
    return _since_send([r.last_token_s for r in results], results, intended)


def _since_send(moments: Sequence[float | None], results: Sequence[RequestResult], intended: bool) -> Array:
    spans = []
    for moment, result in zip(moments, results, strict=True):
        start = result.intended_s if intended else result.sent_s
        if result.status == "ok" and moment is not None and start is not None:
            spans.append(moment - start)
    return np.asarray(spans, dtype=np.float64)


def tpot_s(results: Sequence[RequestResult]) -> Array:
    """Return the time per output token after the first, one value a completed request with two tokens or
    more.

    (last token - first token) / (output tokens - 1), in seconds; the server's count of tokens where it gave
    one. Of several choices the sum of these spans by the tokens after each choice's first.
    """
    return np.asarray(
        [result.tpot_s for result in results if result.status == "ok" and result.tpot_s is not None], dtype=np.float64
    )


def normalized_latency_s(results: Sequence[RequestResult]) -> Array:
    """Return the end-to-end latency by output token of each completed request, in seconds a token."""
    return np.asarray(
        [
            (result.last_token_s - result.sent_s) / result.output_tokens
            for result in results
            if result.status == "ok"
            and result.last_token_s is not None
            and result.sent_s is not None
            and result.output_tokens > 0
        ],
        dtype=np.float64,
    )


def itl_s(results: Sequence[RequestResult], events: TokenEvents) -> Array:
    """Return the inter-token latencies of the completed requests in seconds, one value a token.

    Tokens that arrived at one moment (one event, or several events in one read) form a group of n; the gap
    since the group before is spread over them as n values of gap / n. The tokens of a request's first group
    have no gap, so a request of T tokens with first group n0 gives T - n0 values, whose sum is last minus
    first token time. Each choice of a request has gaps of its own.
    """
    return _itl(results, events).values_s


def itl_chunk_s(results: Sequence[RequestResult], events: TokenEvents) -> Array:
    """Return the gaps between successive token events of the completed requests in seconds, whatever they
    carry."""
    return _itl_chunk(results, events).values_s


@dataclass(frozen=True)
class Timed:
    """Latencies in seconds, and when each was complete in seconds since the window start."""

    at_s: Array
    values_s: Array


def timed_latencies(result: LoadResult) -> dict[str, Timed]:
    """Return the latencies of the completed requests by name, as in `summarize`."""
    results = result.results
    firsts = [one for one in results if one.status == "ok" and one.first_token_s is not None and one.sent_s is not None]
    lasts = [one for one in results if one.status == "ok" and one.last_token_s is not None]
    whole = [one for one in lasts if one.sent_s is not None and one.output_tokens > 0]
    several = [one for one in lasts if one.tpot_s is not None]
    texts, answers = ttft_text_s(results), ttft_answer_s(results)
    told = [one for one in results if one.status == "ok" and one.sent_s is not None]
    return {
        "ttft": Timed(_moments(one.first_token_s for one in firsts), ttft_s(results)),
        "ttft_text": Timed(_moments(one.first_text_s for one in told if one.first_text_s is not None), texts),
        "ttft_answer": Timed(
            _moments(one.first_answer_s for one in told if len(answers) and one.first_answer_s is not None), answers
        ),
        "tpot": Timed(_moments(one.last_token_s for one in several), tpot_s(results)),
        "itl": _itl(results, result.events),
        "e2e": Timed(_moments(one.last_token_s for one in lasts if one.sent_s is not None), e2e_s(results)),
        "normalized_latency": Timed(_moments(one.last_token_s for one in whole), normalized_latency_s(results)),
        "itl_chunk": _itl_chunk(results, result.events),
    }


def _moments(moments: Iterable[float | None]) -> Array:
    return np.asarray(list(moments), dtype=np.float64)


def _itl(results: Sequence[RequestResult], events: TokenEvents) -> Timed:
    stream, time_s, tokens = _completed(results, events)
    if not len(stream):
        return Timed(np.zeros(0), np.zeros(0))
    new = np.ones(len(stream), dtype=bool)
    new[1:] = (stream[1:] != stream[:-1]) | (time_s[1:] != time_s[:-1])
    starts = np.flatnonzero(new)
    sizes = np.add.reduceat(tokens, starts)
    stream, time_s = stream[starts], time_s[starts]
    same = stream[1:] == stream[:-1]
    counts = sizes[1:][same]
    return Timed(np.repeat(time_s[1:][same], counts), np.repeat(np.diff(time_s)[same] / counts, counts))


def _itl_chunk(results: Sequence[RequestResult], events: TokenEvents) -> Timed:
    stream, time_s, _ = _completed(results, events)
    same = stream[1:] == stream[:-1]
    return Timed(time_s[1:][same], np.diff(time_s)[same])


def _completed(
    results: Sequence[RequestResult], events: TokenEvents
) -> tuple[NDArray[np.int64], Array, NDArray[np.int32]]:
    """Return stream, time and tokens of the events of completed requests."""
    completed = np.asarray([r.index for r in results if r.status == "ok"], dtype=np.int32)
    keep = np.isin(events.request, completed)
    return events.stream[keep], events.time_s[keep], events.tokens[keep]


def statistics_ms(name: str, values_s: Array, which: Sequence[str] = LATENCY_STATISTICS) -> dict[str, float]:
    """Return `{name}_{statistic}_ms` of values in seconds; empty without values.

    Standard deviation of the values themselves (divisor n); percentiles with linear interpolation.
    """
    if not len(values_s):
        return {}
    values_ms = values_s * 1e3
    computed = {"mean": float(values_ms.mean()), "std": float(values_ms.std())}
    percentiles = {"median": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9}
    for statistic, value in zip(percentiles, np.percentile(values_ms, list(percentiles.values())), strict=True):
        computed[statistic] = float(value)
    return {f"{name}_{statistic}_ms": computed[statistic] for statistic in which}


def summarize(result: LoadResult) -> dict[str, float]:
    """Return the client's part of a point's summary; a metric that has no value is absent.

    Counts, `duration_s`, throughputs per second of duration (completed requests only), and in ms the statistics of
    ttft, ttft_text, ttft_answer, tpot, itl, e2e, normalized_latency and itl_chunk; with intended send times also of
    ttft_intended and e2e_intended. `prompt_tokens` is the server's count where it gave one. `output_tokens_failed`
    are tokens of failed requests. `prompt_length_error_fraction`: how far the server's counts of prompt tokens are
    from those asked for, without their signs, by those asked for; `prompt_length_bias_fraction`: with them.
    `surplus_tokens`: output tokens beyond those asked for. `choices_completed`, `tokens_per_choice_mean`: where
    requests asked for several choices. `requests_client_limited`: failed for want of files or ports on the client's
    side. `requests_ended`: replies that the model ended; `requests_cut`: those that the bound on their length did.
    """
    results, events = result.results, result.events
    completed = [one for one in results if one.status == "ok"]
    prompt_tokens = sum(one.prompt_tokens for one in completed)
    output_tokens = sum(one.output_tokens for one in completed)
    sent = sum(one.sent_s is not None for one in results)
    summary: dict[str, float] = {
        "duration_s": result.duration_s,
        "requests_sent": sent,
        "requests_completed": len(completed),
        "requests_failed": sent - len(completed),
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "requests_miscounted": sum(_miscounted(one) for one in completed),
        "output_tokens_failed": sum(one.output_tokens for one in results if one.status != "ok"),
    }
    summary |= _lengths(completed) | _ends(completed)
    if events.choice is not None and (choices := sum(one.choices for one in completed)):
        summary |= {"choices_completed": choices, "tokens_per_choice_mean": output_tokens / choices}
    limited = sum(one.status == "client_limit" for one in results)
    if limited:
        summary["requests_client_limited"] = limited
    if result.duration_s > 0:
        summary["request_throughput_req_s"] = len(completed) / result.duration_s
        summary["output_throughput_tok_s"] = output_tokens / result.duration_s
        summary["total_throughput_tok_s"] = (prompt_tokens + output_tokens) / result.duration_s
    summary |= statistics_ms("ttft", ttft_s(results))
    summary |= statistics_ms("ttft_text", ttft_text_s(results), _FEW_STATISTICS)
    summary |= statistics_ms("ttft_answer", ttft_answer_s(results), _FEW_STATISTICS)
    summary |= statistics_ms("tpot", tpot_s(results))
    summary |= statistics_ms("itl", itl_s(results, events))
    summary |= statistics_ms("e2e", e2e_s(results))
    summary |= statistics_ms("normalized_latency", normalized_latency_s(results), _FEW_STATISTICS)
    summary |= statistics_ms("itl_chunk", itl_chunk_s(results, events), _FEW_STATISTICS)
    summary |= statistics_ms("ttft_intended", ttft_s(results, intended=True))
    summary |= statistics_ms("e2e_intended", e2e_s(results, intended=True))
    tokens = _completed(results, events)[2]
    if len(tokens):
        summary["tokens_per_chunk_mean"] = float(tokens.mean())
    return summary


def _lengths(completed: Sequence[RequestResult]) -> dict[str, float]:
    """Return how far lengths are from those asked for; without counts of the server's nothing is known of prompts."""
    pairs = [
        (one.prompt_tokens_server, one.prompt_tokens_asked)
        for one in completed
        if one.prompt_tokens_server is not None and one.prompt_tokens_asked
    ]
    lengths: dict[str, float] = {
        "surplus_tokens": sum(max(one.output_tokens - one.output_tokens_asked, 0) for one in completed)
    }
    if pairs:
        asked = sum(one for _, one in pairs)
        lengths["prompt_length_error_fraction"] = sum(abs(served - one) for served, one in pairs) / asked
        lengths["prompt_length_bias_fraction"] = sum(served - one for served, one in pairs) / asked
    return lengths


def _ends(completed: Sequence[RequestResult]) -> dict[str, float]:
    """Return how many replies the model ended and how many a bound on their length, as far as the server says."""
    reasons = [one.finish_reason.lower() for one in completed if one.finish_reason]
    ends = {"requests_ended": ENDED, "requests_cut": CUT}
    return {name: sum(one in words for one in reasons) for name, words in ends.items()} if reasons else {}


def _miscounted(result: RequestResult) -> bool:
    return result.output_tokens_server is not None and result.output_tokens_server != result.output_tokens_seen
