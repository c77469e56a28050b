"""Several client processes send what one would and count the same; one that dies does not take the rest along."""

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from memgap.errors import UserError
from memgap.load.latency import summarize
from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run
from memgap.load.workers import run_in_processes, wanted_processes
from memgap.mock_server.launch import MockServer
from tests.support.loads import status_counts


@pytest.fixture
def server() -> Iterator[MockServer]:
    with MockServer("--step-base-ms", "2", "--max-num-seqs", "64") as mock:
        yield mock


def prompts(count: int) -> list[Prompt]:
    return [Prompt(3 + index % 5, [1 + index] * (4 + index % 3)) for index in range(count)]


def in_processes(folder: Path, plan: LoadPlan, processes: int, url: str, **more: Any) -> LoadResult:
    return asyncio.run(run_in_processes(plan, prompts(plan.requests), [url], processes, folder, **more))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_counts_are_those_of_one_process(tmp_path: Path, server: MockServer, processes: int) -> None:
    plan = LoadPlan("mock", "closed", 20, concurrency=7, warmup_requests=3)
    alone = run(plan, prompts(20), [server.url], warmup_prompts=prompts(3))
    result = in_processes(tmp_path, plan, processes, server.url, warmup_prompts=prompts(3))
    assert status_counts(result.results) == {"ok": 20}
    assert [one.index for one in result.results] == list(range(20))
    seen = [one.output_tokens_seen for one in result.results]
    assert seen == [one.output_tokens_seen for one in alone.results] == [one.output_tokens for one in prompts(20)]
    assert [int(result.events.tokens[result.events.request == index].sum()) for index in range(20)] == seen
    assert all(np.diff(result.events.time_s[result.events.request == index]).min(initial=0) >= 0 for index in range(20))
    assert len(result.warmup) == 3
    assert (result.health.processes, result.health.tokens) == (processes, sum(seen))
    assert summarize(result)["output_tokens"] == sum(seen)


def test_an_open_loop_keeps_its_arrival_times(tmp_path: Path, server: MockServer) -> None:
    plan = LoadPlan("mock", "poisson", 12, rate_req_s=60.0, seed=4)
    alone = run(plan, prompts(12), [server.url])
    result = in_processes(tmp_path, plan, 3, server.url)
    assert [one.intended_s for one in result.results] == [one.intended_s for one in alone.results]
    assert all(one.sent_s is not None and one.sent_s >= (one.intended_s or 0) for one in result.results)


def test_the_counters_are_read_once_and_before_anything_is_sent(tmp_path: Path, server: MockServer) -> None:
    calls: list[int] = []
    plan = LoadPlan("mock", "closed", 6, concurrency=4)
    result = in_processes(tmp_path, plan, 2, server.url, before_window=lambda: calls.append(1))
    assert calls == [1]
    assert min(one.sent_s for one in result.results if one.sent_s is not None) >= 0


def test_a_dead_client_process_is_told(tmp_path: Path) -> None:
    with MockServer("--step-base-ms", "20", "--max-num-seqs", "64") as mock:
        killed: list[int] = []

        def kill_one(done: int, total: int) -> None:
            children = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
            workers = [one for one in children if "memgap.load.worker" in " ".join(one.cmdline())]
            if not killed and len(workers) == 2:
                killed.append(workers[0].pid)
                os.kill(workers[0].pid, signal.SIGKILL)

        plan = LoadPlan("mock", "closed", 20, concurrency=4)
        result = in_processes(tmp_path, plan, 2, mock.url, on_progress=kill_one)
    assert killed
    assert status_counts(result.results) == {"aborted": 10, "ok": 10}
    assert result.ended_early == "1 of 2 client processes died"


def test_an_abort_ends_all(tmp_path: Path) -> None:
    async def aborted(url: str) -> LoadResult:
        abort = asyncio.Event()
        plan = LoadPlan("mock", "closed", 8, concurrency=8)
        long = [Prompt(1000, [1] * 4) for _ in range(8)]
        asyncio.get_running_loop().call_later(2.0, abort.set)
        return await run_in_processes(plan, long, [url], 2, tmp_path, None, abort)

    with MockServer("--step-base-ms", "50") as mock:
        result = asyncio.run(aborted(mock.url))
    assert set(status_counts(result.results)) <= {"aborted", "not_sent"}


def test_processes_follow_the_streams_and_the_cores() -> None:
    def wanted(streams: int, cores: int) -> int:
        return wanted_processes(LoadPlan("mock", "closed", 5000, concurrency=streams), cores)

    assert (wanted(512, 16), wanted(1024, 16), wanted(1025, 16), wanted(5000, 16), wanted(5000, 2)) == (1, 1, 2, 4, 1)


def test_the_least_busy_server_is_taken() -> None:
    with MockServer("--step-base-ms", "1") as quick, MockServer("--step-base-ms", "40") as slow:
        plan = LoadPlan("mock", "closed", 60, concurrency=6, balance="least-outstanding")
        result = run(plan, prompts(60), [slow.url, quick.url])
        turns = run(LoadPlan("mock", "closed", 20, concurrency=4), prompts(20), [slow.url, quick.url])
    assert status_counts(result.results) == {"ok": 60}
    served = [one.server_index for one in result.results]
    assert served.count(1) > 2 * served.count(0) > 0
    assert [one.server_index for one in turns.results] == [0, 1] * 10


def test_an_unknown_balance_is_named() -> None:
    with pytest.raises(UserError, match="round-robin, least-outstanding"):
        LoadPlan("mock", "closed", 1, concurrency=1, balance="random")  # type: ignore[arg-type]


def test_requests_keep_what_belongs_to_them(tmp_path: Path, server: MockServer) -> None:
    plan = LoadPlan("mock", "closed", 6, concurrency=4, endpoint="chat")
    asked = [Prompt(4, text="some words", group=index % 2, prompt_tokens=2) for index in range(6)]
    result = asyncio.run(run_in_processes(plan, asked, [server.url], 2, tmp_path))
    assert [one.group for one in result.results] == [0, 1] * 3
    assert {one.prompt_tokens_asked for one in result.results} == {2}
    assert status_counts(result.results) == {"ok": 6}


def test_all_processes_begin_with_the_window_however_many_prompts_they_hold(tmp_path: Path, server: MockServer) -> None:
    plan = LoadPlan("mock", "closed", 16, concurrency=4)
    many = [Prompt(2, list(range(1, 400))) for _ in range(16)]
    result = asyncio.run(
        run_in_processes(plan, many, [server.url], 2, tmp_path, before_window=lambda: gc.collect())  # as slow as it is
    )
    first = [min(one.sent_s or 0.0 for one in result.results[number::2]) for number in range(2)]
    assert result.health.start_late_ms < 100
    assert max(first) * 1e3 == pytest.approx(result.health.start_late_ms, abs=50)


def test_a_late_process_is_told(tmp_path: Path, server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgap.load.workers.LEAD_S", -0.2)
    plan = LoadPlan("mock", "closed", 8, concurrency=4)
    result = in_processes(tmp_path, plan, 2, server.url)
    assert result.health.start_late_ms >= 190


def test_processes_of_a_load_in_seconds_stop_together(tmp_path: Path) -> None:
    with MockServer("--step-base-ms", "10") as mock:
        plan = LoadPlan("mock", "closed", 2000, concurrency=4, seconds=1.0, min_requests=4, interval_fraction=0.5)
        result = in_processes(tmp_path, plan, 2, mock.url)
    assert result.stopped_by == "seconds"
    assert status_counts(result.results) == {"ok": len(result.results)}
    assert len(result.results) < 400
    last = [max(one.sent_s or 0.0 for one in result.results if one.index % 2 == number) for number in range(2)]
    assert last == pytest.approx([1.0, 1.0], abs=0.3)
