"""The client against the mock engine over the loopback."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.errors import UserError
from memgap.load.http1 import parse_url
from memgap.load.latency import summarize
from memgap.load.records import Endpoint, LoadPlan, LoadResult, Prompt
from memgap.load.runner import run, run_load
from memgap.mock_server.launch import MockServer
from tests.support.loads import status_counts
from tests.support.waiting import LAST_RESORT_S


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer("--step-base-ms", "2") as mock:
        yield mock


def _prompts(count: int, output: int = 8, prompt: int = 5) -> list[Prompt]:
    return [Prompt(output, [1 + index % 7] * prompt) for index in range(count)]


def _closed(count: int, concurrency: int, **more: float) -> LoadPlan:
    return LoadPlan("mock", "closed", count, concurrency=concurrency, **more)  # type: ignore[arg-type]


def _most_in_flight(result: LoadResult) -> int:
    moments = [(one.sent_s, 1) for one in result.results] + [(one.end_s, -1) for one in result.results]
    level = highest = 0
    for _, step in sorted((moment, step) for moment, step in moments if moment is not None):
        level += step
        highest = max(highest, level)
    return highest


def test_counts_are_those_of_the_server_and_concurrency_is_held(server: MockServer) -> None:
    prompts = [Prompt(1 + index % 9, [3] * (1 + index % 5)) for index in range(40)]
    calls: list[tuple[int, int]] = []
    result = run(_closed(40, 4), prompts, [server.url], lambda done, total: calls.append((done, total)))
    assert status_counts(result.results) == {"ok": 40}
    for prompt, one in zip(prompts, result.results, strict=True):
        assert one.prompt_tokens_server == one.prompt_tokens_asked == len(prompt.token_ids or ())
        assert one.output_tokens_server == one.output_tokens_seen == prompt.output_tokens
        assert one.sent_s is not None and one.first_token_s is not None
        assert one.last_token_s is not None and one.end_s is not None
        assert 0 <= one.sent_s <= one.first_token_s <= one.last_token_s <= one.end_s <= result.duration_s
    assert _most_in_flight(result) == 4
    assert calls == [(done, 40) for done in range(1, 41)]
    assert result.token_source == "token_ids"
    assert result.events.tokens.sum() == sum(prompt.output_tokens for prompt in prompts)
    assert result.health.tokens == result.events.tokens.sum()
    assert result.events.request.dtype == result.events.tokens.dtype == np.dtype(np.int32)
    assert result.health.send_slip_max_ms is None


def test_standard_loop_gives_the_same_counts(server: MockServer) -> None:
    result = asyncio.run(run_load(_closed(10, 3), _prompts(10), [server.url]))
    assert status_counts(result.results) == {"ok": 10}
    assert result.health.loop == "asyncio"
    assert result.health.tokens == 80


def test_open_loop_sends_at_the_intended_times(server: MockServer) -> None:
    plan = LoadPlan("mock", "poisson", 30, rate_req_s=200.0, seed=5)
    result = run(plan, _prompts(30), [server.url])
    assert status_counts(result.results) == {"ok": 30}
    for one in result.results:
        assert one.intended_s is not None and one.sent_s is not None
        assert one.sent_s >= one.intended_s - 1e-6
    assert result.health.send_slip_max_ms is not None
    summary = summarize(result)
    assert summary["ttft_intended_mean_ms"] >= summary["ttft_mean_ms"]


def test_cap_on_an_open_loop_shows_only_in_the_intended_latency(server: MockServer) -> None:
    plan = LoadPlan("mock", "all-at-once", 20, concurrency=2)
    result = run(plan, _prompts(20, output=5), [server.url])
    assert status_counts(result.results) == {"ok": 20}
    assert _most_in_flight(result) == 2
    summary = summarize(result)
    assert summary["e2e_intended_mean_ms"] > 3 * summary["e2e_mean_ms"]


def test_all_at_once_is_all_in_flight(server: MockServer) -> None:
    result = run(LoadPlan("mock", "all-at-once", 20), _prompts(20, output=100), [server.url])
    assert status_counts(result.results) == {"ok": 20}
    assert _most_in_flight(result) == 20


def test_chat_and_text_prompts(server: MockServer) -> None:
    prompts = [Prompt(4, text="three small words")] * 3
    endpoints: list[Endpoint] = ["chat", "completions"]
    for endpoint in endpoints:
        plan = LoadPlan("mock", "closed", 3, concurrency=1, endpoint=endpoint)
        result = run(plan, prompts, [server.url])
        assert status_counts(result.results) == {"ok": 3}
        assert {(one.prompt_tokens_asked, one.prompt_tokens_server) for one in result.results} == {(None, 3)}
        assert {one.output_tokens_seen for one in result.results} == {4}


def test_warmup_stays_outside_the_window(server: MockServer) -> None:
    result = run(_closed(5, 2, warmup_requests=3), _prompts(5), [server.url], warmup_prompts=_prompts(4, output=3))
    assert [one.output_tokens_seen for one in result.warmup] == [3, 3, 3]
    assert all(one.end_s is not None and one.end_s <= 0 for one in result.warmup)
    assert len(result.results) == 5


def test_several_servers_are_taken_in_turn(server: MockServer) -> None:
    with MockServer("--step-base-ms", "1") as other:
        result = run(_closed(10, 4), _prompts(10), [server.url, other.url])
    assert status_counts(result.results) == {"ok": 10}
    assert [one.server_index for one in result.results] == [0, 1] * 5


def test_key_is_sent() -> None:
    with MockServer("--step-base-ms", "1", "--api-key", "k") as mock:
        good = run(LoadPlan("mock", "all-at-once", 2, api_key="k"), _prompts(2), [mock.url])
        bad = run(LoadPlan("mock", "all-at-once", 2), _prompts(2), [mock.url])
    assert status_counts(good.results) == {"ok": 2}
    assert status_counts(bad.results) == {"http_error": 2}
    assert bad.results[0].http_status == 401
    assert bad.results[0].error == "HTTP 401: Unauthorized"


def test_times_are_near_the_truth(tmp_path: Path) -> None:
    stamps = tmp_path / "stamps.npz"
    with MockServer("--step-base-ms", "20", "--precise-timing", "--stamp-file", str(stamps)) as mock:
        result = run(_closed(6, 2), _prompts(6, output=20), [mock.url])
    summary = summarize(result)
    assert summary["tpot_median_ms"] > 15
    assert summary["ttft_median_ms"] > 15
    tpot_ms = []
    with np.load(stamps, allow_pickle=False) as truth:
        for number, request_id in enumerate(truth["request_id"]):
            index = int(str(request_id).rpartition("-")[2])
            written_s = truth["time_ns"][truth["request"] == number] / 1e9 - result.start_monotonic_s
            seen_s = result.events.time_s[result.events.request == index]
            assert len(seen_s) == len(written_s)
            assert (seen_s > written_s - 1e-6).all()
            tpot_ms.append((written_s[-1] - written_s[0]) / (len(written_s) - 1) * 1e3)
    assert summary["tpot_median_ms"] == pytest.approx(np.median(tpot_ms), rel=0.5)


def test_coalesced_chunks_are_seen_as_such() -> None:
    with MockServer("--step-base-ms", "3", "--fault", "coalesce:4") as mock:
        result = run(_closed(4, 2), _prompts(4, output=18), [mock.url])
    assert status_counts(result.results) == {"ok": 4}
    first = result.events.tokens[result.events.request == 0]
    assert first.tolist() == [4, 4, 4, 4, 2]
    summary = summarize(result)
    assert summary["tokens_per_chunk_mean"] == pytest.approx(18 / 5)
    assert summary["itl_chunk_mean_ms"] > 2 * summary["itl_mean_ms"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("http-500:4", "http_error"),
        ("break-stream:4", "broken_stream"),
        ("malformed-event:4", "malformed"),
        ("short-output:4", "short"),
    ],
)
def test_every_fourth_request_fails_and_says_how(fault: str, status: str) -> None:
    with MockServer("--step-base-ms", "1", "--fault", fault) as mock:
        result = run(_closed(16, 1), _prompts(16), [mock.url])
    expected = [status if index % 4 == 3 else "ok" for index in range(16)]
    assert [one.status for one in result.results] == expected
    assert all((one.error is None) == (one.status == "ok") for one in result.results)
    assert result.ended_early is None
    summary = summarize(result)
    assert (summary["requests_completed"], summary["requests_failed"]) == (12, 4)
    assert summary["output_tokens"] == 12 * 8


def test_short_output_is_fine_where_the_end_of_text_counts() -> None:
    with MockServer("--step-base-ms", "1", "--fault", "short-output:1") as mock:
        result = run(LoadPlan("mock", "all-at-once", 2, ignore_eos=False), _prompts(2), [mock.url])
    assert [(one.status, one.output_tokens, one.finish_reason) for one in result.results] == [("ok", 4, "stop")] * 2


def test_dead_server_ends_the_run_early() -> None:
    with MockServer("--step-base-ms", "1", "--fault", "die-after-requests:5") as mock:
        result = run(_closed(500, 4), _prompts(500), [mock.url])
        assert mock.process.wait(LAST_RESORT_S) == 1
    counts = status_counts(result.results)
    assert counts["ok"] >= 1
    assert counts["not_sent"] > 400
    assert counts["refused"] >= 8
    assert sum(counts.values()) == 500
    assert result.ended_early is not None and "refused" in result.ended_early


def test_out_of_memory_under_load_breaks_what_runs() -> None:
    with MockServer("--step-base-ms", "2", "--fault", "oom-at-running:3") as mock:
        result = run(LoadPlan("mock", "all-at-once", 40), _prompts(40), [mock.url])
        assert mock.process.wait(LAST_RESORT_S) == 1
        assert "torch.OutOfMemoryError: CUDA out of memory." in mock.errors
    assert set(status_counts(result.results)) <= {"broken_stream", "refused", "not_sent"}


def test_server_that_never_was() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run(_closed(100, 2), _prompts(100), [url])
    counts = status_counts(result.results)
    assert set(counts) == {"refused", "not_sent"}
    assert counts["refused"] <= 10
    assert summarize(result)["requests_completed"] == 0


def test_stalled_server_gives_timeouts() -> None:
    with MockServer("--step-base-ms", "1", "--fault", "stall:3:30") as mock:
        result = run(_closed(6, 2, request_timeout_s=0.4), _prompts(6), [mock.url])
    counts = Counter(one.status for one in result.results)
    assert counts["timeout"] >= 4
    assert counts["timeout"] + counts["ok"] == 6


def test_abort_ends_the_run_and_keeps_what_came() -> None:
    async def go(url: str) -> LoadResult:
        abort = asyncio.Event()
        asyncio.get_running_loop().call_later(2.0, abort.set)
        return await run_load(_closed(10, 2), _prompts(10, output=2000), [url], abort=abort)

    with MockServer("--step-base-ms", "5") as mock:
        result = asyncio.run(go(mock.url))
    assert status_counts(result.results) == {"aborted": 2, "not_sent": 8}
    assert result.ended_early == "aborted by the caller"
    assert all(one.output_tokens_seen > 0 for one in result.results[:2])


def test_preemption_costs_no_token() -> None:
    with MockServer("--step-base-ms", "1", "--kv-tokens", "128", "--max-model-len", "100") as mock:
        result = run(_closed(12, 6), _prompts(12, output=40, prompt=20), [mock.url])
    assert status_counts(result.results) == {"ok": 12}
    assert {one.output_tokens_seen for one in result.results} == {40}


def test_server_that_is_not_http_is_malformed() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(10)
            peer.sendall(b"SSH-2.0-something\r\n\r\n")
            peer.recv(100000)

    thread = threading.Thread(target=answer)
    thread.start()
    result = run(_closed(1, 1), _prompts(1), [f"http://127.0.0.1:{listener.getsockname()[1]}"])
    thread.join(LAST_RESORT_S)
    listener.close()
    assert [one.status for one in result.results] == ["malformed"]


def test_bad_calls_are_refused() -> None:
    plan = _closed(3, 1)
    with pytest.raises(UserError, match="only 2 prompts"):
        run(plan, _prompts(2), ["http://127.0.0.1:1"])
    with pytest.raises(UserError, match="warmup_requests"):
        run(_closed(1, 1, warmup_requests=1), _prompts(1), ["http://127.0.0.1:1"])
    with pytest.raises(UserError, match="no server"):
        run(plan, _prompts(3), [])
    with pytest.raises(UserError, match="chat"):
        run(LoadPlan("m", "all-at-once", 1, endpoint="chat"), _prompts(1), ["http://127.0.0.1:1"])


@pytest.mark.parametrize("url", ["ftp://a:1", "127.0.0.1:8000", "http://", "http://a:99999", "http://a:1/?x=1"])
def test_bad_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="address"):
        parse_url(url)


@pytest.mark.parametrize("arrival", ["closed", "constant"])
def test_turns_follow_one_another_with_a_pause(server: MockServer, arrival: Any) -> None:
    chats = [Prompt(4, [1] * 8, conversation=index // 3) for index in range(12)]
    more: dict[str, Any] = {"concurrency": 2} if arrival == "closed" else {"rate_req_s": 50.0}
    result = run(LoadPlan("mock", arrival, 12, think_time_s=0.05, **more), chats, [server.url])
    assert [one.status for one in result.results] == ["ok"] * 12
    for first in range(0, 12, 3):
        turns = result.results[first : first + 3]
        for before, after in pairwise(turns):
            assert before.end_s is not None and after.sent_s is not None
            assert after.sent_s >= before.end_s + 0.045
    assert [one.conversation for one in result.results] == [one.conversation for one in chats]


def test_a_turn_that_fails_ends_its_conversation() -> None:
    with MockServer("--step-base-ms", "1", "--fault", "break-stream:2") as mock:
        chats = [Prompt(4, [1] * 8, conversation=0) for _ in range(4)]
        result = run(LoadPlan("mock", "closed", 4, concurrency=1), chats, [mock.url])
    assert [one.status for one in result.results] == ["ok", "broken_stream", "not_sent", "not_sent"]


def test_given_times_are_kept(server: MockServer) -> None:
    offsets = np.array([0.0, 0.15, 0.2])
    plan = LoadPlan("mock", "trace", 3)
    with asyncio.Runner() as runner:
        result = runner.run(run_load(plan, _prompts(3), [server.url], offsets_s=offsets))
    assert [one.intended_s for one in result.results] == pytest.approx(offsets.tolist(), abs=1e-6)
    with pytest.raises(UserError, match="dataset of kind trace"):
        run(plan, _prompts(3), [server.url])


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_a_reply_that_the_server_breaks_off_is_a_failure(ignore_eos: bool) -> None:
    with MockServer("--step-base-ms", "1", "--fault", "abort:2") as mock:
        plan = LoadPlan("mock", "closed", 4, concurrency=2, ignore_eos=ignore_eos)
        result = run(plan, _prompts(4, output=8), [mock.url])
    assert status_counts(result.results) == {"broken_stream": 2, "ok": 2}
    (error,) = {one.error for one in result.results if one.error}
    assert error == "the server ended the reply with finish reason 'abort' after 4 tokens"


def test_lengths_other_than_asked_are_told() -> None:
    with MockServer("--step-base-ms", "1", "--fault", "longer-prompts:0.5", "--fault", "surplus-tokens:2") as mock:
        result = run(_closed(4, 2), _prompts(4, output=8, prompt=10), [mock.url])
    summary = summarize(result)
    assert summary["prompt_length_error_fraction"] == summary["prompt_length_bias_fraction"] == 0.5
    assert summary["surplus_tokens"] == 8
    assert status_counts(result.results) == {"ok": 4}


def test_a_limit_of_open_files_is_the_clients_and_not_the_servers_end() -> None:
    code = (
        "import collections, json, resource, sys\n"
        "from memgap.load.latency import summarize\n"
        "from memgap.load.records import LoadPlan, Prompt\n"
        "from memgap.load.runner import run\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "result = run(LoadPlan('mock', 'all-at-once', 150), [Prompt(20, [1] * 4)] * 150, [sys.argv[1]])\n"
        "counts = collections.Counter(one.status for one in result.results)\n"
        "print(json.dumps([counts, result.ended_early, summarize(result)]))\n"
    )
    with MockServer("--step-base-ms", "5") as mock:
        done = subprocess.run([sys.executable, "-c", code, mock.url], capture_output=True, text=True, check=True)
        assert mock.process.poll() is None
    counts, ended_early, summary = json.loads(done.stdout)
    assert counts["client_limit"] >= 8 and "refused" not in counts
    assert "Too many open files" in ended_early and "server" not in ended_early
    assert summary["requests_client_limited"] == counts["client_limit"]


def test_a_load_in_seconds_stops_sending_and_waits_for_what_is_in_flight() -> None:
    with MockServer("--step-base-ms", "5") as mock:
        result = run(_closed(4000, 4, seconds=1.0), _prompts(4000, output=10), [mock.url])
    assert result.stopped_by == "seconds"
    assert status_counts(result.results) == {"ok": len(result.results)}
    assert 40 < len(result.results) < 100
    assert 0.9 < max(one.sent_s or 0.0 for one in result.results) < 1.2
    assert result.duration_s < 1.5


def test_a_load_in_seconds_sends_its_least_number_and_no_more_than_its_most(server: MockServer) -> None:
    least = run(_closed(400, 2, seconds=0.01, min_requests=30), _prompts(400), [server.url])
    assert (least.stopped_by, status_counts(least.results)) == ("seconds", {"ok": 31})
    most = run(_closed(12, 2, seconds=60.0), _prompts(12), [server.url])
    assert (most.stopped_by, status_counts(most.results)) == ("requests", {"ok": 12})
    plain = run(_closed(12, 2), _prompts(12), [server.url])
    assert plain.stopped_by is None


def test_a_load_stops_once_its_throughput_is_known_well_enough(server: MockServer) -> None:
    plan = _closed(20000, 4, seconds=60.0, least_seconds=3.0, interval_fraction=0.3)
    result = run(plan, _prompts(20000, output=4), [server.url])
    assert result.stopped_by == "interval"
    assert 2.9 < max(one.sent_s or 0.0 for one in result.results) < 20
    assert status_counts(result.results) == {"ok": len(result.results)}


@pytest.mark.parametrize(
    "more",
    [
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"least_seconds": 3.0},
        {"interval_fraction": 0.1},
        {"min_requests": 3},
        {"seconds": 3.0, "min_requests": 0},
    ],
)
def test_bounds_in_seconds_that_make_no_sense_are_refused(more: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"load\."):
        _closed(4, 2, **more)
    with pytest.raises(UserError, match="closed loop"):
        LoadPlan("mock", "poisson", 4, rate_req_s=1.0, seconds=3.0)
