"""Checks of completeness: did all tokens come, and do both sides count the same?"""

from memgap.models.synthetic import speaks_words
from memgap.stats.averaging import LEAST_SHARE
from memgap.telemetry.window import left_out
from memgap.verdict.evidence import Evidence, Reason

FAILED_INVALID = 0.01
"""With a larger share of failed requests the load was another one."""
COUNT_TOLERANCE = 0.002
"""Client and server may differ by this share of tokens: counters are read a moment before and after."""
PREFIX_HIT_INVALID = 0.01
PROMPT_LENGTH_SUSPECT, PROMPT_LENGTH_INVALID = 0.01, 0.1
"""Differences of prompt lengths by those asked for; token ids have no reason to differ at all."""
CHAT_LENGTH_SUSPECT = 0.05
"""A text is cut into tokens anew, and a chat template adds to it."""
TRACE_SUSPECT = 0.01
"""Share of a trace's requests that were not sent."""
SURPLUS_INVALID = 0.01
SEATS_SUSPECT = 0.9
"""Mean share of a closed loop's seats taken in its steady part, or in the whole window where it has none."""
SAMPLES_SUSPECT = 8
"""Averages of gauges over fewer samples say little."""
GAP_SUSPECT_S, GAP_SUSPECT_SHARE = 2.0, 0.2
"""A silence of the engine's metrics or of the GPU's, in seconds and by the window: longer than both is suspect."""


def failed_requests(evidence: Evidence) -> Reason | None:
    """Judge requests that failed, truncated ones included."""
    failed, sent = evidence.number("requests_failed") or 0.0, evidence.number("requests_sent") or 1.0
    text = f"{failed:.0f} of {sent:.0f} requests failed or came short"
    return Reason.graded("failed_requests", failed / sent, 0.0, FAILED_INVALID, text)


def usage_mismatch(evidence: Evidence) -> Reason | None:
    """Judge requests whose tokens in the stream are not what the server reports for them."""
    wrong = evidence.number("requests_miscounted") or 0.0
    if not wrong:
        return None
    text = f"for {wrong:.0f} requests the server reports another number of output tokens than its stream held"
    return Reason("usage_mismatch", "invalid", wrong, 0.0, text)


def output_count(evidence: Evidence) -> Reason | None:
    """Judge the output tokens that the server's counters saw against those that the client saw."""
    server = evidence.number("server_output_tokens")
    client = (evidence.number("output_tokens") or 0.0) + (evidence.number("output_tokens_failed") or 0.0)
    if server is None or evidence.number("requests_failed"):
        return None
    gap = abs(server - client) / max(client, 1.0)
    if gap <= COUNT_TOLERANCE:
        return None
    text = f"the server generated {server:.0f} tokens in the window, the client counted {client:.0f}"
    return Reason("output_count", "invalid", gap, COUNT_TOLERANCE, text)


def prompt_lengths(evidence: Evidence) -> Reason | None:
    """Judge the prompts' lengths as the server counted them against those asked for."""
    error, bias = evidence.number("prompt_length_error_fraction"), evidence.number("prompt_length_bias_fraction") or 0.0
    if error is None:
        return None
    chat = evidence.record["load"].get("endpoint") == "chat"
    cut_anew = evidence.record["load"].get("prompt_form") == "text" and not speaks_words(evidence.record["model"])
    bound = CHAT_LENGTH_SUSPECT if chat or cut_anew else PROMPT_LENGTH_SUSPECT
    if error <= bound:
        return None
    way = f"{abs(bias):.0%} {'longer' if bias > 0 else 'shorter'} in sum" if round(abs(bias), 2) else "equal in sum"
    why = "; the chat template is part of them" if chat and bias > 0 else ""
    text = f"the server counted prompts that differ from those asked for by {error:.0%} ({way}{why})"
    limit = -bias if chat else error  # a chat template makes prompts longer by right, never shorter
    if limit > PROMPT_LENGTH_INVALID:
        return Reason("prompt_lengths", "invalid", error, PROMPT_LENGTH_INVALID, text)
    return Reason("prompt_lengths", "suspect", error, bound, text)


def surplus_tokens(evidence: Evidence) -> Reason | None:
    """Judge output tokens beyond those asked for."""
    surplus, output = evidence.number("surplus_tokens") or 0.0, evidence.number("output_tokens") or 0.0
    if not output:
        return None
    text = f"{surplus:.0f} of {output:.0f} output tokens came beyond the number asked for"
    return Reason.graded("surplus_tokens", surplus / output, 0.0, SURPLUS_INVALID, text)


def kept_cache(evidence: Evidence) -> Reason | None:
    """Judge hits in a prefix cache that could not be emptied before the window."""
    if evidence.prefix_cache_emptied is not False:
        return None
    queries, hits = evidence.number("prefix_cache_queries"), evidence.number("prefix_cache_hits")
    if queries is not None and hits is not None:
        if not queries or hits / queries <= PREFIX_HIT_INVALID:
            return None
        text = (
            f"the prefix cache could not be emptied before the window; part of its hits ({hits / queries:.0%} of the "
        )
        text += "prompt tokens) may be left from before"
        return Reason("kept_prefix_cache", "suspect", hits / queries, PREFIX_HIT_INVALID, text)
    text = "the prefix cache could not be emptied before the window, and how many hits it had is not known"
    return Reason("kept_prefix_cache", "suspect", 1.0, 0.0, text)


def trace_left_out(evidence: Evidence) -> Reason | None:
    """Judge the rows of a replayed trace that its limits of lengths, or damage, kept from being sent."""
    rows, sent = evidence.number("trace_rows"), evidence.number("trace_rows_sent")
    if not rows or sent is None or (rows - sent) / rows <= TRACE_SUSPECT:
        return None
    gone = (rows - sent) / rows
    text = f"{rows - sent:.0f} of the {rows:.0f} requests that the trace has in this time were not sent"
    if rate := evidence.number("trace_rate_req_s"):
        text += f": {rate * (1 - gone):.3g} of its {rate:.3g} requests/s (before `speed`)"
    return Reason("trace_left_out", "suspect", gone, TRACE_SUSPECT, text)


def prefix_hits(evidence: Evidence) -> Reason | None:
    """Judge prefix-cache hits where no two prompts share a start."""
    queries, hits = evidence.number("prefix_cache_queries"), evidence.number("prefix_cache_hits")
    if evidence.shares_prefixes or not queries or not hits or hits / queries <= PREFIX_HIT_INVALID:
        return None
    text = f"{hits / queries:.0%} of the prompt tokens came from the prefix cache although no prompts share a start"
    return Reason("prefix_cache_hits", "invalid", hits / queries, PREFIX_HIT_INVALID, text)


def preempted(evidence: Evidence) -> Reason | None:
    """Judge requests that were evicted from the KV cache."""
    count = evidence.number("preemptions") or 0.0
    if not count:
        return None
    text = f"{count:.0f} preemptions: requests were evicted from a full KV cache and computed again"
    return Reason("preempted", "suspect", count, 0.0, text)


def few_samples(evidence: Evidence) -> Reason | None:
    """Judge how well the window was sampled."""
    samples = evidence.number("telemetry_samples") or 0.0
    if samples >= SAMPLES_SUSPECT:
        return None
    text = f"only {samples:.0f} telemetry samples lie in the window; measure longer or sample faster"
    return Reason("few_samples", "suspect", samples, SAMPLES_SUSPECT, text)


def telemetry_gap(evidence: Evidence) -> Reason | None:
    """Judge whether the engine's metrics or the GPU fell silent: averages then hold what came last before that."""
    duration_s = evidence.number("duration_s") or 0.0
    for source, name in (("engine", "the engine's metrics"), ("gpu", "the GPU's counters (NVML)")):
        gap_s = evidence.number(f"{source}_telemetry_gap_s")
        bound_s = max(GAP_SUSPECT_S, GAP_SUSPECT_SHARE * duration_s)
        if gap_s is not None and (gap_s > bound_s or gap_s >= duration_s > 0.0):
            text = f"{name} could not be read for {gap_s:.1f} of {duration_s:.1f} s; averages of them miss that part"
            return Reason("telemetry_gap", "suspect", gap_s, bound_s, text)
    return None


def unread_counters(evidence: Evidence) -> Reason | None:
    """Judge counters that the engine has and whose change could not be read: it is not known, and not none.

    Where requests failed the server may be gone, which says more.
    """
    if evidence.number("requests_failed"):
        return None
    names = {"num_preemptions": "preemptions", "generation_tokens": "server_output_tokens"}
    unread = [
        column
        for column, change in names.items()
        if evidence.number(left_out(column)) and evidence.number(change) is None
    ]
    if not unread:
        return None
    text = (
        f"the engine's counter {' and '.join(unread)} could not be read before or after the window, or was set back, "
    )
    text += "so its change is not known"
    return Reason("unread_counters", "suspect", float(len(unread)), 0.0, text)


def no_steady_part(evidence: Evidence) -> Reason | None:
    """Judge whether the load was held up long enough for its averages to mean something."""
    share = evidence.number("steady_share_fraction")
    if share is None or share >= LEAST_SHARE:
        return None
    text = f"the load was held up in {share:.0%} of the window only; send more requests (load.requests) or for longer"
    return Reason("no_steady_part", "suspect", share, LEAST_SHARE, text)


def empty_seats(evidence: Evidence) -> Reason | None:
    """Judge whether a closed loop had as many requests in flight as it was to have."""
    share, load = evidence.number("seats_taken_fraction"), evidence.record["load"]
    if share is None or load.get("think_time_s") or share >= SEATS_SUSPECT:
        return None
    text = f"on average {share:.0%} of the requests that were to be in flight were; send more requests or for longer"
    return Reason("empty_seats", "suspect", share, SEATS_SUSPECT, text)


CHECKS = (
    failed_requests,
    usage_mismatch,
    output_count,
    prompt_lengths,
    surplus_tokens,
    trace_left_out,
    prefix_hits,
    kept_cache,
    preempted,
    few_samples,
    telemetry_gap,
    unread_counters,
    no_steady_part,
    empty_seats,
)
