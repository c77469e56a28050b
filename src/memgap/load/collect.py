"""From the stored reads to results: the work that waits until the load is over."""

from collections.abc import Iterator, Sequence

import numpy as np

from memgap.load.health import p99_and_max_ms
from memgap.load.http1 import Exchange
from memgap.load.records import (
    ClientHealth,
    LoadPlan,
    LoadResult,
    Prompt,
    RequestResult,
    Status,
    StoppedBy,
    TokenEvents,
    TokenSource,
)
from memgap.load.sse import WHOLE, ParsedReply, parse_reply


def collect(
    *,
    plan: LoadPlan,
    prompts: Sequence[Prompt],
    exchanges: Sequence[Exchange | None],
    ready_ns: Sequence[int] | None,
    due_ns: Sequence[int] | None,
    warmup_prompts: Sequence[Prompt],
    warmup_exchanges: Sequence[Exchange | None],
    servers: int,
    start_unix_s: float,
    start_ns: int,
    end_ns: int,
    probed: tuple[float, float, float, float],
    late_ns: int,
    loop_name: str,
    ended_early: str | None,
    stopped_by: StoppedBy | None = None,
) -> LoadResult:
    """Return the result of a run.

    `exchanges` are in the order of `prompts`, None where nothing was sent; they lose their bytes on the way.
    `ready_ns` are the monotonic times when requests could have been sent and `due_ns` those when they were meant to
    be (0 where they were not reached), `probed` the values of the lag probe, `late_ns` how long after the
    planned moment the window began. Where the load stopped by time or interval, what was not sent is left out.
    """
    results: list[RequestResult] = []
    requests: list[int] = []
    times_ns: list[int] = []
    tokens: list[int] = []
    choices: list[int] = []
    sources: set[TokenSource] = set()
    coalesced = chunks = reads = skipped = 0
    slips_s: list[float] = []
    pairs = _results(plan, prompts, exchanges, servers, start_ns)
    for (result, reply), exchange in zip(pairs, exchanges, strict=True):
        if due_ns is not None and due_ns[result.index]:
            result.intended_s = (due_ns[result.index] - start_ns) / 1e9
        if exchange is not None and ready_ns is not None:
            slips_s.append((exchange.sent_ns - ready_ns[result.index]) / 1e9)
        requests.extend([result.index] * len(reply.tokens))
        order = sorted(range(len(reply.choices)), key=reply.choices.__getitem__)
        times_ns.extend(reply.times_ns[one] for one in order)
        tokens.extend(reply.tokens[one] for one in order)
        choices.extend(reply.choices[one] for one in order)
        sources.add(reply.token_source)
        coalesced += reply.coalesced
        chunks += reply.chunks
        skipped += reply.skipped
        if exchange is not None:
            reads += len(exchange.parts)
            exchange.parts = []
        if exchange is not None or stopped_by in (None, "requests"):
            results.append(result)
    warmup = [result for result, _ in _results(plan, warmup_prompts, warmup_exchanges, servers, start_ns)]
    events = TokenEvents(
        request=np.asarray(requests, dtype=np.int32),
        time_s=(np.asarray(times_ns, dtype=np.int64) - start_ns) / 1e9,
        tokens=np.asarray(tokens, dtype=np.int32),
        choice=np.asarray(choices, dtype=np.int32) if plan.samples > 1 else None,
    )
    slip = p99_and_max_ms(slips_s) if slips_s else (None, None)
    return LoadResult(
        results=results,
        events=events,
        warmup=warmup,
        start_unix_s=start_unix_s,
        start_monotonic_s=start_ns / 1e9,
        duration_s=(end_ns - start_ns) / 1e9,
        token_source=_one_source(sources),
        health=ClientHealth(
            loop_lag_p99_ms=probed[0],
            loop_lag_max_ms=probed[1],
            cpu_fraction=probed[2],
            send_slip_p99_ms=slip[0],
            send_slip_max_ms=slip[1],
            reads=reads,
            chunks=chunks,
            tokens=int(events.tokens.sum()),
            coalesced_fraction=coalesced / len(tokens) if tokens else 0.0,
            loop=loop_name,
            skipped_events=skipped,
            standstill_s=probed[3],
            start_late_ms=late_ns / 1e6,
        ),
        ended_early=ended_early,
        stopped_by=stopped_by,
    )


def _one_source(sources: set[TokenSource]) -> TokenSource:
    found = sources - {"none"}
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"


def _results(
    plan: LoadPlan,
    prompts: Sequence[Prompt],
    exchanges: Sequence[Exchange | None],
    servers: int,
    start_ns: int,
) -> Iterator[tuple[RequestResult, ParsedReply]]:
    for index, (prompt, exchange) in enumerate(zip(prompts, exchanges, strict=True)):
        result = RequestResult(
            index=index,
            server_index=index % servers if exchange is None else exchange.server_index,
            prompt_tokens_asked=prompt.asked_tokens,
            output_tokens_asked=prompt.output_tokens * plan.samples,
            conversation=prompt.conversation,
            group=prompt.group,
        )
        if exchange is None:
            yield result, ParsedReply()
            continue
        reply = parse_reply(exchange.times_ns, exchange.parts, plan.stream)
        result.sent_s = (exchange.sent_ns - start_ns) / 1e9
        result.end_s = (exchange.end_ns - start_ns) / 1e9
        if reply.times_ns:
            result.first_token_s = (reply.times_ns[0] - start_ns) / 1e9 if plan.stream else None
            result.last_token_s = (reply.times_ns[-1] - start_ns) / 1e9
        if reply.first_text_ns is not None and plan.stream:
            result.first_text_s = (reply.first_text_ns - start_ns) / 1e9
        if reply.first_answer_ns is not None and plan.stream:
            result.first_answer_s = (reply.first_answer_ns - start_ns) / 1e9
        result.prompt_tokens_server = reply.prompt_tokens
        result.output_tokens_server = reply.output_tokens
        result.output_tokens_seen = sum(reply.tokens)
        result.chunks = reply.chunks
        result.http_status = reply.http_status
        result.finish_reason = reply.finish_reason
        result.choices = len(set(reply.choices))
        if plan.samples > 1:
            result.decode_s = _decode_s(reply)
        result.status, result.error = _verdict(exchange, reply, result, plan)
        yield result, reply


def _decode_s(reply: ParsedReply) -> float:
    """Return the sum over the choices of the time from the first to the last token."""
    last_ns = dict(zip(reply.choices, reply.times_ns, strict=True))
    first_ns = dict(zip(reversed(reply.choices), reversed(reply.times_ns), strict=True))
    return sum(last_ns[choice] - first_ns[choice] for choice in last_ns) / 1e9


def _verdict(
    exchange: Exchange, reply: ParsedReply, result: RequestResult, plan: LoadPlan
) -> tuple[Status, str | None]:
    """Return the status of a request that was tried, and a sentence about what went wrong."""
    if exchange.outcome in ("timeout", "refused", "client_limit", "aborted", "malformed"):
        return exchange.outcome, exchange.error
    if reply.http_status not in (None, 200):
        return "http_error", f"HTTP {reply.http_status}: {reply.message}"
    if exchange.outcome != "done":
        return "broken_stream", exchange.error
    if reply.malformed is not None:
        return "malformed", reply.malformed
    if reply.message is not None:
        return "broken_stream", f"the server reported an error in the stream: {reply.message}"
    if not reply.done:
        return "broken_stream", "the stream ended without [DONE]"
    if not reply.tokens:
        return "short", "the stream held no token"
    if result.choices < plan.samples:
        return "short", f"{result.choices} of {plan.samples} choices came"
    came, asked, reason = result.output_tokens, result.output_tokens_asked, reply.finish_reason
    if plan.samples > 1:
        by_choice = dict.fromkeys(reply.choices, 0)
        for choice, tokens in zip(reply.choices, reply.tokens, strict=True):
            by_choice[choice] += tokens
        came = min(came, plan.samples * min(by_choice.values()))
    if came >= asked:
        return "ok", None
    if reason is not None and reason.lower() not in WHOLE:
        return "broken_stream", f"the server ended the reply with finish reason {reason[:40]!r} after {came} tokens"
    if plan.ignore_eos:
        return "short", f"{came} of {asked} tokens came"
    if reason is None and reply.token_source != "text":
        return "broken_stream", f"the server ended the reply without a finish reason after {came} of {asked} tokens"
    if reason == "length" and reply.token_source != "text":
        return "short", f"{came} of {asked} tokens came, cut at a limit of the server's (finish reason 'length')"
    return "ok", None
