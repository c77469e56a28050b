"""Runs a load: warm-up, window, and the records of what came back."""

import asyncio
import dataclasses
import errno
import gc
import os
import resource
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.load.arrivals import intended_offsets_s, think_times_s
from memgap.load.collect import collect
from memgap.load.enough import Enough
from memgap.load.health import LagProbe
from memgap.load.http1 import ClientConnection, Exchange, Pool, parse_url
from memgap.load.loop import loop_factory
from memgap.load.payload import request_bytes, request_heads
from memgap.load.records import LoadPlan, LoadResult, Prompt

Progress = Callable[[int, int], None]

CLIENT_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
"""Why a connection cannot be made although nothing is known of the server: files, ports or memory of the client."""
_MOST_CONNECTIONS_AHEAD = 1024
_FEW_CONNECTIONS_AHEAD = 64


class _Window:
    """Sends one list of requests and keeps what happened to each."""

    def __init__(
        self,
        plan: LoadPlan,
        heads: Sequence[bytes],
        requests: Sequence[bytes],
        chains: Sequence[Sequence[int]],
        pools: Sequence[Pool],
        on_progress: Progress | None,
    ) -> None:
        self.exchanges: list[Exchange | None] = [None] * len(requests)
        self.ready_ns: list[int] = [0] * len(requests)
        self.due_ns: list[int] = [0] * len(requests)
        self.ended_early: str | None = None
        self._plan = plan
        self._heads = heads
        self._requests = requests
        self._chains = chains
        self._think_s = think_times_s(plan).tolist() if plan.think_time_s else None
        self._in_flight = [0] * len(pools)
        self._pools = pools
        self._on_progress = on_progress
        self._next = 0
        self._done = 0
        self._refused = 0
        self._stopped = asyncio.Event()
        self._flying: dict[int, Exchange] = {}
        self._reads = 0
        self.enough = Enough(plan, self._reads_so_far)
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self, reason: str) -> None:
        """End the run: nothing more is sent, and what is in flight is broken off."""
        if self._stopped.is_set():
            return
        self.ended_early = reason
        self._stopped.set()
        for pool in self._pools:
            pool.stop(reason)

    async def closed_loop(self, concurrency: int) -> None:
        """Keep `concurrency` requests in flight, but for pauses, until all are done or enough are (`Enough`)."""
        count = min(concurrency, len(self._chains))
        watch = asyncio.create_task(self.enough.watch())
        try:
            await asyncio.gather(*(self._worker() for _ in range(count)))
        finally:
            watch.cancel()

    def _reads_so_far(self) -> int:
        return self._reads + sum(len(one.times_ns) for one in self._flying.values())

    async def open_loop(self, offsets_s: Sequence[float], start_ns: int) -> None:
        """Send each request, or begin each conversation, at its time after `start_ns` (monotonic), or when the cap
        leaves room."""
        loop = asyncio.get_running_loop()
        cap = self._plan.concurrency or len(self._requests)
        queue: deque[int] = deque()
        all_sent = asyncio.Event()
        timer: asyncio.TimerHandle | None = None
        due_ns = [start_ns + round(offset_s * 1e9) for offset_s in offsets_s]
        freed_ns = start_ns
        for chain, moment_ns in zip(self._chains, due_ns, strict=True):
            self.due_ns[chain[0]] = moment_ns

        def send_queued() -> None:
            while queue and len(self._tasks) < cap and not self._stopped.is_set():
                chain = queue.popleft()
                first = self._chains[chain][0]
                self.ready_ns[first] = max(due_ns[chain], freed_ns)
                task = loop.create_task(self._chain(self._chains[chain]))
                self._tasks.add(task)
                task.add_done_callback(ended)
            if self._next == len(due_ns) and not queue:
                all_sent.set()

        def ended(task: asyncio.Task[None]) -> None:
            nonlocal freed_ns
            self._tasks.discard(task)
            if queue:
                freed_ns = time.monotonic_ns()
                send_queued()

        def tick() -> None:
            nonlocal timer
            now_ns = time.monotonic_ns()
            while self._next < len(due_ns) and due_ns[self._next] <= now_ns:
                queue.append(self._next)
                self._next += 1
            if self._next < len(due_ns):
                timer = loop.call_later((due_ns[self._next] - now_ns) / 1e9, tick)
            send_queued()

        tick()
        waits = [asyncio.create_task(one.wait()) for one in (all_sent, self._stopped)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            while self._tasks:
                await asyncio.wait(set(self._tasks))
        finally:
            if timer is not None:
                timer.cancel()
            for wait in waits:
                wait.cancel()

    async def _worker(self) -> None:
        while self._next < len(self._chains) and not self._stopped.is_set() and not self.enough.now():
            chain = self._chains[self._next]
            self._next += 1
            await self._chain(chain)
            if self._think_s is not None and self._next < len(self._chains):
                await self._pause(self._think_s[chain[-1]])

    async def _chain(self, chain: Sequence[int]) -> None:
        """Send the requests of a conversation one after the other; one that fails ends it."""
        for place, index in enumerate(chain):
            if place and self._think_s is not None:
                await self._pause(self._think_s[chain[place - 1]])
            if self._stopped.is_set():
                return
            now_ns = time.monotonic_ns()
            if place:
                self.due_ns[index] = self.ready_ns[index] = now_ns
            await self._one(index, now_ns)
            exchange = self.exchanges[index]
            if exchange is None or exchange.outcome != "done":
                return

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for longer than the run lasts."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _one(self, index: int, sent_ns: int) -> None:
        server = self._server(index)
        pool = self._pools[server]
        self._in_flight[server] += 1
        exchange = Exchange(index, server, sent_ns)
        self.exchanges[index] = exchange
        self._flying[index] = exchange
        timeout_s = self._plan.request_timeout_s
        rested = connection = pool.resting()
        if connection is None:
            connection = await self._connect(pool, exchange, timeout_s)
        if connection is not None:
            if self._stopped.is_set():
                connection.close()
                exchange.outcome, exchange.end_ns = "aborted", time.monotonic_ns()
                exchange.error = self.ended_early
            else:
                request = self._heads[server] + self._requests[index]
                await connection.send(request, exchange, timeout_s)
                if rested is not None and exchange.unheard and not self._stopped.is_set():
                    await self._once_more(pool, request, exchange, timeout_s)
            pool.give_back(connection)
        self._in_flight[server] -= 1
        del self._flying[index]
        self._reads += len(exchange.times_ns)
        self._account(exchange)

    async def _once_more(self, pool: Pool, request: bytes, exchange: Exchange, timeout_s: float) -> None:
        """Send a request anew that met a connection which its server was closing after the reply before.

        Servers may do so at any time, and have then not read it. Its clock runs on from the first try.
        """
        left_s = timeout_s - (time.monotonic_ns() - exchange.sent_ns) / 1e9
        exchange.outcome, exchange.error = "open", None
        connection = await self._connect(pool, exchange, max(left_s, 0.0))
        if connection is not None:
            await connection.send(request, exchange, max(left_s, 0.0))
            pool.give_back(connection)

    def _server(self, index: int) -> int:
        if self._plan.balance == "round-robin":
            return index % len(self._pools)
        return min(range(len(self._pools)), key=lambda one: (self._in_flight[one], (one - index) % len(self._pools)))

    async def _connect(self, pool: Pool, exchange: Exchange, timeout_s: float) -> ClientConnection | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await pool.open()
        except TimeoutError:
            exchange.outcome, exchange.error = "timeout", "no connection in time"
        except OSError as error:
            said = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            if error.errno in CLIENT_LIMITS:
                exchange.outcome, exchange.error = "client_limit", f"the client cannot open another connection: {said}"
            else:
                exchange.outcome, exchange.error = "refused", f"no connection: {said}"
        exchange.end_ns = time.monotonic_ns()
        return None

    def _account(self, exchange: Exchange) -> None:
        self._done += 1
        self.enough.request_ended()
        if exchange.outcome in ("refused", "client_limit"):
            self._refused += 1
            if self._refused >= self._plan.max_consecutive_refused:
                self.stop(f"{self._refused} connections in a row could not be made; the last: {exchange.error}")
        elif exchange.parts:
            self._refused = 0
        if self._on_progress is not None:
            self._on_progress(self._done, len(self._requests))


async def run_load(
    plan: LoadPlan,
    prompts: Sequence[Prompt],
    urls: Sequence[str],
    on_progress: Progress | None = None,
    abort: asyncio.Event | None = None,
    warmup_prompts: Sequence[Prompt] = (),
    before_window: Callable[[], int | None] | None = None,
    offsets_s: NDArray[np.float64] | None = None,
) -> LoadResult:
    """Send `plan.requests` of `prompts` to the servers at `urls` in turn and return what came back.

    First the first `plan.warmup_requests` of `warmup_prompts` are sent, at the plan's concurrency and outside
    the window; then `before_window` is called, with nothing in flight: it may return the monotonic time in ns at
    which the window has to start. `offsets_s` replaces the plan's own intended send times (seconds, one a
    request or conversation). `on_progress(done, total)` is called after each request of the window. Setting
    `abort` breaks off what is in flight. No request is tried twice, but for one whose used connection the server
    closed before any byte of a reply. Failed requests are results, not exceptions.

    Raises UserError for too few prompts, no or bad addresses, token ids in a chat.
    """
    if len(prompts) < plan.requests:
        raise UserError(f"load.requests is {plan.requests}, but there are only {len(prompts)} prompts.")
    if len(warmup_prompts) < plan.warmup_requests:
        raise UserError(
            f"load.warmup_requests is {plan.warmup_requests}, but there are only {len(warmup_prompts)} prompts for it."
        )
    if not urls:
        raise UserError("no server address is given; give at least one.")
    prompts = prompts[: plan.requests]
    warmup_prompts = warmup_prompts[: plan.warmup_requests]
    targets = [parse_url(url) for url in urls]
    tag = secrets.token_hex(4)
    heads = request_heads(plan, targets)
    requests = request_bytes(plan, prompts, tag)
    warmup_requests = request_bytes(plan, warmup_prompts, f"{tag}-warmup")
    _raise_file_limit()
    chains = _chains(prompts)
    unhurried = dataclasses.replace(
        plan, think_time_s=0.0, seconds=None, least_seconds=None, interval_fraction=None, min_requests=None
    )
    pools = [Pool(target) for target in targets]
    watcher: asyncio.Task[None] | None = None
    try:
        warmup = _Window(unhurried, heads, warmup_requests, _chains(warmup_prompts), pools, None)
        window = _Window(plan, heads, requests, chains, pools, on_progress)
        if abort is not None:
            watcher = asyncio.create_task(_watch(abort, (warmup, window)))
        if warmup_requests:
            await warmup.closed_loop(plan.concurrency or len(warmup_requests))
        loop = asyncio.get_running_loop()
        if offsets_s is None:
            offsets_s = intended_offsets_s(plan, len(chains))
        # collecting garbage takes a second for many prompts: it comes before the moment that all processes wait for
        with _no_garbage_collection():
            planned_ns = before_window() if before_window is not None else None
            await _fill(pools, plan)
            while planned_ns is not None and (left_ns := planned_ns - time.monotonic_ns()) > 0:
                await asyncio.sleep(left_ns / 1e9)  # a timer may fire a little early
            probe = LagProbe(loop)
            start_ns = time.monotonic_ns() if planned_ns is None else planned_ns
            late_ns = max(time.monotonic_ns() - start_ns, 0)
            start_unix_s = time.time() - (time.monotonic_ns() - start_ns) / 1e9
            if offsets_s is None:
                assert plan.concurrency is not None
                await window.closed_loop(plan.concurrency)
            else:
                await window.open_loop(offsets_s.tolist(), start_ns)
            end_ns = time.monotonic_ns()
            probed = probe.stop()
    finally:
        if watcher is not None:
            watcher.cancel()
        for pool in pools:
            pool.stop("the run is over")
    return collect(
        plan=plan,
        prompts=prompts,
        exchanges=window.exchanges,
        ready_ns=None if offsets_s is None else window.ready_ns,
        due_ns=None if offsets_s is None else window.due_ns,
        warmup_prompts=warmup_prompts,
        warmup_exchanges=warmup.exchanges,
        servers=len(targets),
        start_unix_s=start_unix_s,
        start_ns=start_ns,
        end_ns=end_ns,
        probed=probed,
        late_ns=late_ns,
        loop_name=type(loop).__module__.partition(".")[0],
        ended_early=window.ended_early,
        stopped_by=window.enough.by
        or ("requests" if plan.seconds is not None and window.ended_early is None else None),
    )


def run(
    plan: LoadPlan,
    prompts: Sequence[Prompt],
    urls: Sequence[str],
    on_progress: Progress | None = None,
    warmup_prompts: Sequence[Prompt] = (),
) -> LoadResult:
    """Run `run_load` in a loop of its own, uvloop's where it is installed; see there."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(run_load(plan, prompts, urls, on_progress, warmup_prompts=warmup_prompts))


def _chains(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the indices of the requests that follow one another: one alone each, but for conversations."""
    chains: list[list[int]] = []
    by_conversation: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        chain: list[int] = []
        if prompt.conversation is not None:
            chain = by_conversation.setdefault(prompt.conversation, chain)
        if not chain:
            chains.append(chain)
        chain.append(index)
    return chains


async def _watch(abort: asyncio.Event, windows: Sequence[_Window]) -> None:
    await abort.wait()
    for window in windows:
        window.stop("aborted by the caller")


async def _fill(pools: Sequence[Pool], plan: LoadPlan) -> None:
    """Open connections before the window, so that connecting delays as few first tokens as possible."""
    if plan.arrival == "all-at-once":
        wanted = _MOST_CONNECTIONS_AHEAD
    elif plan.arrival == "closed":
        wanted = plan.requests
    else:
        wanted = _FEW_CONNECTIONS_AHEAD
    wanted = min(wanted, plan.requests, plan.concurrency or plan.requests)
    for pool in pools:
        await pool.fill(-(-wanted // len(pools)))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the cyclic garbage collector out of the window; its pauses would show as latency."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _raise_file_limit() -> None:
    """Allow as many open connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
