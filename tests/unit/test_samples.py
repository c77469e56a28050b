"""Several choices of a prompt: told apart, counted and timed each, by client, simulated engine and judge."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.errors import UserError
from memgap.load.latency import summarize
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run
from memgap.load.sse import parse_reply
from memgap.mock_server.launch import MockServer
from memgap.scheduling.scheduler import Scheduler, Sequence
from memgap.tables.goodput import request_latencies
from memgap.tables.requests import events_of, requests_of
from tests.support.loads import status_counts
from tests.support.records import small_study
from tests.support.sessions import run_session

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer("--step-base-ms", "2") as mock:
        yield mock


def chunk(event: dict[str, Any] | str) -> bytes:
    data = b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def told(index: int, usage: int | None = None, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "text": "w1", "finish_reason": reason, **more}
    return chunk({"choices": [choice], **({"usage": {"completion_tokens": usage}} if usage is not None else {})})


END = chunk("[DONE]") + b"0\r\n\r\n"


def test_choices_are_told_apart_by_their_index() -> None:
    parts = [HEAD, told(0, token_ids=[1]), told(1, token_ids=[2, 3]) + told(0, token_ids=[4]), told(1, token_ids=[5])]
    reply = parse_reply(range(5), [*parts, END])
    assert (reply.times_ns, reply.choices, reply.tokens) == ([1, 2, 2, 3], [0, 1, 0, 1], [1, 2, 1, 1])
    assert reply.coalesced == 0  # both came in one read, and each is its choice's first there


def test_usage_counts_each_choice_by_itself() -> None:
    events = [told(0, 1), told(1, 1), told(1, 3, "length"), told(0, 2, "stop"), chunk({"choices": [], "usage": {}})]
    reply = parse_reply(range(7), [HEAD, *events, END])
    assert (reply.token_source, reply.choices, reply.tokens) == ("usage", [0, 1, 1, 0], [1, 1, 2, 1])
    assert reply.finish_reason == "stop"
    odd = parse_reply(range(4), [HEAD, told(0, 1, "abort"), told(1, 1, "length"), END])
    assert odd.finish_reason == "abort"


def test_every_choice_is_counted_and_timed(server: MockServer) -> None:
    plan = LoadPlan("mock", "closed", 6, concurrency=2, samples=3, temperature=1.0)
    result = run(plan, [Prompt(8, [3] * 5)] * 6, [server.url])
    assert status_counts(result.results) == {"ok": 6}
    for one in result.results:
        assert one.choices == 3
        assert one.output_tokens_asked == one.output_tokens_seen == one.output_tokens_server == 24
        assert one.decode_s is not None and one.first_token_s is not None and one.last_token_s is not None
        assert one.decode_s <= 3 * (one.last_token_s - one.first_token_s) + 1e-9
    assert result.events.choice is not None
    pairs = set(zip(result.events.request.tolist(), result.events.choice.tolist(), strict=True))
    assert pairs == {(request, choice) for request in range(6) for choice in range(3)}
    for request, choice in pairs:
        own = (result.events.request == request) & (result.events.choice == choice)
        assert (np.diff(result.events.time_s[own]) >= 0).all()
        assert result.events.tokens[own].sum() == 8
    summary = summarize(result)
    assert (summary["choices_completed"], summary["tokens_per_choice_mean"]) == (18, 8)
    assert summary["surplus_tokens"] == 0
    lasted_s = sum(one.decode_s or 0.0 for one in result.results)
    assert summary["tpot_mean_ms"] == pytest.approx(1e3 * lasted_s / (6 * 3 * 7))


def test_a_choice_that_does_not_come_makes_the_reply_short(server: MockServer) -> None:
    plan = LoadPlan("mock", "closed", 1, concurrency=1, samples=2, temperature=1.0)
    with MockServer("--step-base-ms", "1", "--fault", "short-output:1") as short:
        assert run(plan, [Prompt(8, [3])], [short.url]).results[0].status == "short"


def test_a_whole_reply_has_no_first_token(server: MockServer) -> None:
    result = run(LoadPlan("mock", "closed", 4, concurrency=2, stream=False), [Prompt(8, [3] * 5)] * 4, [server.url])
    assert status_counts(result.results) == {"ok": 4}
    assert [one.output_tokens_seen for one in result.results] == [8] * 4
    assert all(one.first_token_s is None and one.last_token_s is not None for one in result.results)
    summary = summarize(result)
    assert summary["e2e_mean_ms"] > 0 and summary["output_throughput_tok_s"] > 0
    assert not [name for name in summary if name.startswith(("ttft", "itl", "tpot"))]


def test_the_prompt_of_several_choices_is_held_once() -> None:
    class Nobody:
        def token(self, index: int, last: bool) -> None: ...

    scheduler = Scheduler(max_num_seqs=8, num_blocks=100, block_size=4)
    for forked in (0, 4, 4):
        scheduler.add(Sequence(18, 10, Nobody(), forked_blocks=forked))
    batch = scheduler.begin_step()
    assert batch is not None and batch.chunk_tokens == 18 + 2 + 2
    assert 100 - scheduler.free_blocks == 5 + 1 + 1
    while scheduler.finish_step() is not None and scheduler.begin_step() is not None:
        pass
    assert scheduler.free_blocks == 100


@pytest.mark.parametrize("processes", [1, 2])
def test_a_point_of_samples_is_measured_and_valid(tmp_path: Path, processes: int) -> None:
    load = {"requests": 8, "warmup_requests": 1, "samples": 4, "temperature": 1, "client_processes": processes}
    point = run_session(small_study(batch_cap=2, load=load), tmp_path)
    summary = point["summary"]
    assert summary["output_tokens"] == summary["server_output_tokens"] == 8 * 4 * 8
    wrong = {"usage_mismatch", "output_count", "surplus_tokens", "prefix_cache_hits", "ttft_gap", "e2e_gap", "short"}
    assert not wrong & set(point["flags"])
    folder = tmp_path / "results/points" / point["key"]
    assert len(events_of(folder)[["request", "choice"]].drop_duplicates()) == 32
    latencies = request_latencies(requests_of(folder))
    assert latencies["tpot_ms"].mean() == pytest.approx(summary["tpot_mean_ms"], rel=1e-6)


def test_prompts_go_as_text_of_the_same_length_and_replies_whole(tmp_path: Path) -> None:
    load = {"requests": 8, "warmup_requests": 1, "prompt_form": "text", "stream": False}
    point = run_session(small_study(batch_cap=2, load=load), tmp_path)
    assert point["summary"]["prompt_length_error_fraction"] == 0
    assert point["summary"]["prompt_tokens"] == 8 * 12
    assert not {"tokens_per_chunk", "server_standstill", "prompt_lengths"} & set(point["flags"])


def test_what_was_always_so_makes_no_other_key() -> None:
    (usual,) = small_study(batch_cap=2).points
    plain = {"requests": 6, "warmup_requests": 1, "samples": 1, "stream": True, "prompt_form": "token-ids"}
    assert list(small_study(batch_cap=2, load=plain).points) == [usual]
    with pytest.raises(UserError, match=r"samples needs load\.temperature above 0"):
        small_study(batch_cap=2, load={**plain, "samples": 2})
    with pytest.raises(UserError, match=r"samples needs a stream"):
        small_study(batch_cap=2, load={**plain, "samples": 2, "stream": False})


def test_an_endless_rate_is_all_at_once() -> None:
    load = {"requests": 6, "arrival": "poisson", "rate_req_s": [5.0, float("inf")]}
    finite, endless = small_study(batch_cap=2, cap_side="server", load=load).points.values()
    assert (finite.record["load"]["arrival"], endless.record["load"]["arrival"]) == ("poisson", "all-at-once")
    (same,) = small_study(batch_cap=2, cap_side="server", load={"requests": 6}).points
    assert endless.key == same
    with pytest.raises(UserError, match="no finite number"):
        small_study(batch_cap=2, load={"requests": 6, "temperature": float("inf")})
    with pytest.raises(UserError, match=r"rate_req_s \.inf needs"):
        small_study(batch_cap=2, load={"requests": 6, "rate_req_s": float("inf")})
