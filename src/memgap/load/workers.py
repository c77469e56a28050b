"""A load from several client processes, for more streams than one core can follow, with one merged result.

Every process takes the requests `index % processes == its number`, a share of the closed loop's concurrency, and for
an open loop the intended send times of its own requests: together they send what one process would. The window of all
starts at one moment of the monotonic clock, which the processes of a machine share.
"""

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.load.arrivals import intended_offsets_s
from memgap.load.records import (
    ClientHealth,
    LoadPlan,
    LoadResult,
    Prompt,
    RequestResult,
    TokenEvents,
    TokenSource,
)
from memgap.load.worker import API_KEY, write_job

STREAMS_PER_PROCESS = 1024
"""One core followed 186,000 tokens/s; a process is given no more streams than this by itself."""
LEAD_S = 0.25
LEAD_PER_STREAM_S = 0.0005
"""How long before the window's start every process is told of it, and what each stream adds for its connection."""
WorkerResult = dict[str, Any]


def wanted_processes(plan: LoadPlan, cores: int) -> int:
    """Return how many client processes a load gets by itself: one for each 1,024 streams, on a quarter of the cores."""
    streams = min(plan.concurrency or plan.requests, plan.requests)
    return max(1, min(-(-streams // STREAMS_PER_PROCESS), cores // 4))


async def run_in_processes(
    plan: LoadPlan,
    prompts: Sequence[Prompt],
    urls: Sequence[str],
    processes: int,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
    abort: asyncio.Event | None = None,
    warmup_prompts: Sequence[Prompt] = (),
    before_window: Callable[[], int | None] | None = None,
    offsets_s: NDArray[np.float64] | None = None,
) -> LoadResult:
    """Like `memgap.load.runner.run_load`, from `processes` processes that keep their files in `folder`.

    A process that dies leaves its requests as aborted, and the result says so in `ended_early`.
    """
    prompts, warmup_prompts = prompts[: plan.requests], warmup_prompts[: plan.warmup_requests]
    processes = max(1, min(processes, plan.requests, plan.concurrency or plan.requests))
    if offsets_s is None:
        offsets_s = intended_offsets_s(plan)
    jobs = [folder / f"client{number}" for number in range(processes)]
    for number, job in enumerate(jobs):
        mine, warm = prompts[number::processes], warmup_prompts[number::processes]
        share = _share(plan, number, processes, len(mine), len(warm))
        due_s = None if offsets_s is None else offsets_s[number::processes].tolist()
        write_job(job, {"plan": share, "urls": list(urls), "offsets_s": due_s}, list(mine), list(warm))
    clients = [_Client(job, await _start(job, plan.api_key)) for job in jobs]
    watcher = None if abort is None else asyncio.create_task(_stop_on(abort, clients))
    try:
        await asyncio.gather(*(one.ready() for one in clients))
        if before_window is not None:
            before_window()
        lead_s = LEAD_S + LEAD_PER_STREAM_S * min(plan.concurrency or plan.requests, plan.requests)
        start_ns = time.monotonic_ns() + round(lead_s * 1e9)

        def progress() -> None:
            if on_progress is not None:
                on_progress(sum(one.done for one in clients), plan.requests)

        await asyncio.gather(*(one.run(start_ns, progress) for one in clients))
    finally:
        if watcher is not None:
            watcher.cancel()
        for one in clients:
            one.stop()
        await asyncio.gather(*(one.gone() for one in clients))
    return _merge(plan, prompts, [one.result() for one in clients], start_ns)


def _share(plan: LoadPlan, number: int, processes: int, requests: int, warmup: int) -> dict[str, Any]:
    """Return the fields of one process's plan."""
    share = dataclasses.asdict(plan)
    del share["api_key"]
    concurrency = plan.concurrency
    if concurrency is not None:
        concurrency = concurrency // processes + (number < concurrency % processes)
    if plan.min_requests is not None:
        share["min_requests"] = max(plan.min_requests * requests // plan.requests, 1)
    # each process would see its own part only and stop at a moment of its own
    share["interval_fraction"] = None
    share["least_seconds"] = None
    return {**share, "requests": requests, "warmup_requests": warmup, "concurrency": concurrency}


async def _start(job: Path, api_key: str | None) -> asyncio.subprocess.Process:
    secret = {} if api_key is None else {API_KEY: api_key}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "memgap.load.worker",
        str(job),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **secret},
    )


async def _stop_on(abort: asyncio.Event, clients: "Sequence[_Client]") -> None:
    await abort.wait()
    for one in clients:
        one.stop()


class _Client:
    """One client process."""

    def __init__(self, job: Path, process: asyncio.subprocess.Process) -> None:
        self.done = 0
        self._job = job
        self._process = process

    async def ready(self) -> None:
        """Return when the process has warmed up, or died."""
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    async def run(self, start_ns: int, on_progress: Callable[[], None]) -> None:
        """Tell the start and follow the progress to the end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % start_ns)
        while line := await self._process.stdout.readline():
            self.done = int(line)
            on_progress()
        await self._process.wait()

    def stop(self) -> None:
        """Let the process end early; it still writes what it has."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def gone(self) -> None:
        """Return when the process has ended; one that does not is killed."""
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def result(self) -> WorkerResult | None:
        """Return what the process wrote, None where it died before."""
        try:
            whole: WorkerResult = json.loads((self._job / "result.json").read_text(encoding="utf-8"))
            with np.load(self._job / "events.npz", allow_pickle=False) as events:
                whole["events"] = dict(events)
        except (OSError, ValueError, KeyError):
            return None
        return whole


def _merge(
    plan: LoadPlan, prompts: Sequence[Prompt], workers: Sequence[WorkerResult | None], start_ns: int
) -> LoadResult:
    """Return one result in the order of the requests; events are grouped by request as in any result."""
    processes = len(workers)
    parts = [(number, one) for number, one in enumerate(workers) if one is not None]
    stopped = {one["stopped_by"] for _, one in parts} - {None, "requests"}
    told = {number for number, one in parts if one["stopped_by"] not in (None, "requests")}
    results = [
        RequestResult(index, 0, output_tokens_asked=prompt.output_tokens, status="aborted", error="its client died")
        for index, prompt in enumerate(prompts)
    ]
    sent: set[int] = set()
    for number, worker in parts:
        for given in worker["results"]:
            given["index"] = given["index"] * processes + number
            results[given["index"]] = RequestResult(**given)
            sent.add(given["index"])
    request = np.concatenate([worker["events"]["request"] * processes + number for number, worker in parts] or [[]])
    order = np.argsort(request, kind="stable")

    def events(name: str, kind: type) -> Any:
        return np.concatenate([worker["events"][name] for _, worker in parts] or [[]]).astype(kind)[order]

    several = plan.samples > 1
    died = processes - len(parts)
    early = [worker["ended_early"] for _, worker in parts if worker["ended_early"]]
    if died:
        early.append(f"{died} of {processes} client processes died")
    ends_s = [worker["duration_s"] for _, worker in parts]
    return LoadResult(
        results=[one for one in results if one.index in sent or one.index % processes not in told],
        events=TokenEvents(
            request[order].astype(np.int32),
            events("time_s", np.float64),
            events("tokens", np.int32),
            events("choice", np.int32) if several else None,
        ),
        warmup=[RequestResult(**given) for _, worker in parts for given in worker["warmup"]],
        start_unix_s=min((worker["start_unix_s"] for _, worker in parts), default=time.time()),
        start_monotonic_s=start_ns / 1e9,
        duration_s=max(ends_s, default=0.0),
        token_source=_one_source({worker["token_source"] for _, worker in parts}),
        health=_health([ClientHealth(**worker["health"]) for _, worker in parts], processes),
        ended_early="; ".join(dict.fromkeys(early)) or None,
        stopped_by="seconds" if stopped else "requests" if plan.seconds is not None else None,
    )


def _one_source(sources: set[TokenSource]) -> TokenSource:
    found = sources - {"none"}
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"


def _health(parts: Sequence[ClientHealth], processes: int) -> ClientHealth:
    def worst(name: str) -> Any:
        return max((value for value in (getattr(one, name) for one in parts) if value is not None), default=None)

    tokens = sum(one.tokens for one in parts)
    chunks = sum(one.chunks for one in parts)
    return ClientHealth(
        loop_lag_p99_ms=worst("loop_lag_p99_ms") or 0.0,
        loop_lag_max_ms=worst("loop_lag_max_ms") or 0.0,
        cpu_fraction=worst("cpu_fraction") or 0.0,
        send_slip_p99_ms=worst("send_slip_p99_ms"),
        send_slip_max_ms=worst("send_slip_max_ms"),
        reads=sum(one.reads for one in parts),
        chunks=chunks,
        tokens=tokens,
        coalesced_fraction=sum(one.coalesced_fraction * one.chunks for one in parts) / max(chunks, 1),
        loop=parts[0].loop if parts else "none",
        processes=processes,
        skipped_events=sum(one.skipped_events for one in parts),
        standstill_s=worst("standstill_s") or 0.0,
        start_late_ms=worst("start_late_ms") or 0.0,
    )
