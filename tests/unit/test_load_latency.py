"""Latency and throughput, on cases that can be done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from memgap.load.latency import itl_chunk_s, itl_s, summarize, timed_latencies, tpot_s, ttft_s
from memgap.load.records import ClientHealth, LoadResult, RequestResult, TokenEvents

_HEALTH = ClientHealth(0, 0, 0, None, None, 0, 0, 0, 0, "asyncio")


def _events(*rows: tuple[int, float, int]) -> TokenEvents:
    request, time_s, tokens = zip(*rows, strict=True) if rows else ((), (), ())
    return TokenEvents(np.asarray(request, np.int32), np.asarray(time_s, np.float64), np.asarray(tokens, np.int32))


def _ok(index: int, sent: float, first: float, last: float, tokens: int) -> RequestResult:
    return RequestResult(
        index,
        0,
        sent_s=sent,
        first_token_s=first,
        last_token_s=last,
        end_s=last,
        prompt_tokens_server=10,
        output_tokens_server=tokens,
        output_tokens_seen=tokens,
        status="ok",
    )


def _result(results: list[RequestResult], events: TokenEvents) -> LoadResult:
    return LoadResult(results, events, [], 0.0, 0.0, 2.0, "token_ids", _HEALTH)


def test_single_tokens() -> None:
    results = [_ok(0, 1.0, 1.5, 1.8, 4)]
    events = _events((0, 1.5, 1), (0, 1.6, 1), (0, 1.7, 1), (0, 1.8, 1))
    summary = summarize(_result(results, events))
    assert summary["ttft_mean_ms"] == pytest.approx(500)
    assert (summary["tpot_mean_ms"], summary["itl_p99_ms"]) == pytest.approx((100, 100))
    assert summary["e2e_median_ms"] == pytest.approx(800)
    assert summary["output_throughput_tok_s"] == 2
    assert summary["total_throughput_tok_s"] == 7
    assert summary["request_throughput_req_s"] == 0.5
    assert summary["tokens_per_chunk_mean"] == 1
    assert "ttft_intended_mean_ms" not in summary


def test_gap_of_a_chunk_is_spread_over_its_tokens() -> None:
    results = [_ok(0, 0, 1.0, 1.9, 6)]
    events = _events((0, 1.0, 2), (0, 1.3, 3), (0, 1.9, 1))
    assert itl_s(results, events) == pytest.approx([0.1, 0.1, 0.1, 0.6])
    assert itl_chunk_s(results, events) == pytest.approx([0.3, 0.6])
    assert tpot_s(results) == pytest.approx([0.9 / 5])


def test_chunks_of_one_read_are_spread_together() -> None:
    results = [_ok(0, 0, 1.0, 1.4, 5)]
    events = _events((0, 1.0, 1), (0, 1.4, 1), (0, 1.4, 3))
    assert itl_s(results, events) == pytest.approx([0.1] * 4)
    assert itl_chunk_s(results, events) == pytest.approx([0.4, 0.0])


def test_no_gap_is_taken_between_requests() -> None:
    results = [_ok(0, 0, 1.0, 2.0, 2), _ok(1, 0, 2.0, 2.5, 2)]
    events = _events((0, 1.0, 1), (0, 2.0, 1), (1, 2.0, 1), (1, 2.5, 1))
    assert itl_s(results, events) == pytest.approx([1.0, 0.5])
    assert itl_chunk_s(results, events) == pytest.approx([1.0, 0.5])


def test_failed_requests_are_counted_and_left_out() -> None:
    broken = replace(_ok(1, 0, 5.0, 9.0, 100), status="broken_stream")
    results = [_ok(0, 0, 1.0, 1.1, 2), broken, RequestResult(2, 0)]
    events = _events((0, 1.0, 1), (0, 1.1, 1), (1, 5.0, 50), (1, 9.0, 50))
    summary = summarize(_result(results, events))
    assert (summary["requests_sent"], summary["requests_completed"], summary["requests_failed"]) == (2, 1, 1)
    assert (summary["output_tokens"], summary["output_tokens_failed"]) == (2, 100)
    assert summary["ttft_p99_ms"] == pytest.approx(1000)
    assert summary["itl_p99_ms"] == pytest.approx(100)
    assert summary["tokens_per_chunk_mean"] == 1


def test_intended_latency_contains_the_wait_before_the_send() -> None:
    results = [replace(_ok(0, 3.0, 3.5, 4.0, 2), intended_s=1.0)]
    assert ttft_s(results).tolist() == [0.5]
    assert ttft_s(results, intended=True).tolist() == [2.5]
    summary = summarize(_result(results, _events((0, 3.5, 1), (0, 4.0, 1))))
    assert summary["e2e_intended_mean_ms"] == pytest.approx(3000)


def test_first_text_and_first_answer_stand_beside_the_first_token() -> None:
    plain = replace(_ok(0, 1.0, 1.5, 3.0, 4), first_text_s=1.75, first_answer_s=1.75, finish_reason="stop")
    events = _events((0, 1.5, 2), (0, 3.0, 2))
    summary = summarize(_result([plain], events))
    assert (summary["ttft_mean_ms"], summary["ttft_text_mean_ms"]) == pytest.approx((500, 750))
    assert "ttft_answer_mean_ms" not in summary, "nobody reasoned"
    assert (summary["requests_ended"], summary["requests_cut"]) == (1, 0)
    reasoned = replace(plain, index=1, first_answer_s=2.5)
    unanswered = replace(plain, index=2, first_answer_s=None, finish_reason="LENGTH")
    silent = replace(plain, index=3, first_text_s=None, first_answer_s=None)
    result = _result([plain, reasoned, unanswered, silent], events)
    summary = summarize(result)
    assert summary["ttft_answer_mean_ms"] == pytest.approx((750 + 1500) / 2)
    assert summary["ttft_text_mean_ms"] == pytest.approx(750)
    assert (summary["requests_ended"], summary["requests_cut"]) == (3, 1)
    timed = timed_latencies(result)
    assert timed["ttft_text"].at_s.tolist() == [1.75] * 3
    assert timed["ttft_answer"].at_s.tolist() == [1.75, 2.5]
    assert len(timed["ttft_answer"].values_s) == 2
    none = summarize(_result([_ok(0, 0, 1.0, 1.1, 2)], events))
    assert not {"requests_ended", "ttft_text_mean_ms"} & none.keys(), "the server does not say"


def test_one_token_has_no_tpot_and_no_completion_no_latency() -> None:
    one = summarize(_result([_ok(0, 0, 1.0, 1.0, 1)], _events((0, 1.0, 1))))
    assert "tpot_mean_ms" not in one
    assert "itl_mean_ms" not in one
    assert one["ttft_mean_ms"] == pytest.approx(1000)
    none = summarize(_result([RequestResult(0, 0)], _events()))
    assert none["requests_completed"] == 0
    assert not [name for name in none if name.endswith("_ms")]
