"""Runs the scheduler through time with a step's costs, and jumps over steps in which nothing changes.

With asynchronous scheduling the batch of a step is chosen when the step before begins, so that a request waits for the
rest of a step and one more before its prompt is computed. A request passes one of the API servers first, which work one
request after another.
"""

import heapq
from collections.abc import Sequence as Many
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from memgap.scheduling.scheduler import Batch, Scheduler, Sequence
from memgap.twin.costs import Coefficients, Roofline

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """One request; lengths in tokens. `due_s`: when an open loop sends it; the first `prefix_tokens` are those of its
    `group`.
    """

    prompt_tokens: int
    output_tokens: int
    due_s: float | None = None
    group: int | None = None
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Server:
    """What of a server its scheduler depends on: limits in sequences, tokens and blocks of `block_tokens`."""

    max_num_seqs: int
    max_batched_tokens: int
    num_blocks: int
    block_tokens: int = 16
    chunked: bool = True
    prefix_caching: bool = False
    asynchronous: bool = True
    api_servers: int = 1


@dataclass(frozen=True)
class Frontend:
    """Time outside the engine: each request occupies an API server for `service_ms`, and its messages take `delay_ms`
    both ways together.
    """

    delay_ms: float = 0.0
    service_ms: float = 0.0


@dataclass(frozen=True)
class Steps:
    """Stretches of alike steps, arrays of shape (stretches,): `count` steps from `start_ms` on, the first of
    `first_ms`, each next one `slope_ms` longer; `decodes` sequences get a token in each. `features` of the first,
    (stretches, 7), `growth` is what decode attention gains a step. `running`, `waiting` and `kv` as they began.
    """

    start_ms: Array
    count: Array
    first_ms: Array
    slope_ms: Array
    decodes: Array
    features: Array
    growth: Array
    running: Array
    waiting: Array
    kv: Array


@dataclass(frozen=True)
class Run:
    """What was simulated; times in ms since the first request was sent, arrays of shape (requests,).

    `first_step` and `last_step` count the steps up to the one with a request's first and last token. `gaps_ms` are
    those of tokens after a preemption.
    """

    sent_ms: Array
    queued_ms: Array
    first_ms: Array
    last_ms: Array
    output_tokens: Array
    prompt_tokens: Array
    steps: Steps
    gaps_ms: Array
    preemptions: int
    prefix_hits: int


def simulate(
    requests: Many[Request],
    server: Server,
    roofline: Roofline,
    coefficients: Coefficients,
    frontend: Frontend,
    concurrency: int | None = None,
) -> Run:
    """Return what the server makes of the requests, each sent when it is due (without a time: at once) and fewer than
    `concurrency` are in flight.
    """
    return _Simulation(requests, server, roofline, coefficients, frontend, concurrency).run()


class _Simulation:
    def __init__(
        self,
        requests: Many[Request],
        server: Server,
        roofline: Roofline,
        coefficients: Coefficients,
        frontend: Frontend,
        concurrency: int | None,
    ) -> None:
        self.requests, self.server, self.roofline = requests, server, roofline
        self.weights = coefficients.values
        self.scheduler = Scheduler(
            max_num_seqs=server.max_num_seqs,
            num_blocks=server.num_blocks,
            block_size=server.block_tokens,
            max_batched_tokens=server.max_batched_tokens,
            chunked=server.chunked,
            prefix_caching=server.prefix_caching,
        )
        count = len(requests)
        self.sent, self.queued, self.first, self.last = ([0.0] * count for _ in range(4))
        self.frontend = frontend
        self.api = [0.0] * server.api_servers
        self.arrivals: list[tuple[float, int]] = []
        self.rows: list[tuple[float, ...]] = []
        self.features: list[tuple[float, ...]] = []
        self.gaps: list[float] = []
        self.next = count if concurrency is None else min(concurrency, count)
        for number in range(self.next):
            self.send(0.0, number)

    def send(self, now_ms: float, number: int) -> None:
        """A client sends a request as soon as it is due; it reaches the engine when an API server has had it."""
        self.sent[number] = sent_ms = max(now_ms, 1e3 * (self.requests[number].due_s or 0.0))
        free_ms = heapq.heappop(self.api)
        done_ms = max(sent_ms, free_ms) + self.frontend.service_ms
        heapq.heappush(self.api, done_ms)
        heapq.heappush(self.arrivals, (done_ms + self.frontend.delay_ms / 2, number))

    def take(self, now_ms: float) -> None:
        """Hand the scheduler what has reached the engine."""
        while self.arrivals and self.arrivals[0][0] <= now_ms:
            at_ms, number = heapq.heappop(self.arrivals)
            self.queued[number] = at_ms
            one = self.requests[number]
            self.scheduler.add(
                Sequence(
                    one.prompt_tokens,
                    one.output_tokens,
                    prefix_group=one.group,
                    prefix_tokens=one.prefix_tokens,
                    number=number,
                )
            )

    def run(self) -> Run:
        scheduler, weights = self.scheduler, self.weights
        now = self.arrivals[0][0] if self.arrivals else 0.0
        attention = weights[2]
        batch: Batch | None = None
        following: Batch | None = None
        ahead = self.server.asynchronous
        while True:
            self.take(now)
            if batch is None:
                batch = scheduler.begin_step()
                if batch is None:
                    if not self.arrivals:
                        break
                    now = max(now, self.arrivals[0][0])
                    continue
            if ahead:
                following = scheduler.begin_step()
            features = self.roofline.features(batch)
            first = sum(map(float.__mul__, weights, features))
            quiet = 0 if batch.chunks or batch.lasts or (ahead and following is None) else scheduler.quiet_steps()
            if quiet:
                decodes = batch.decodes
                mean = batch.context_tokens // decodes
                growth = (
                    self.roofline.decode[min(mean + quiet, len(self.roofline.decode) - 1)] - self.roofline.decode[mean]
                )
                growth *= decodes / quiet
                slope = attention * growth
                if self.arrivals:
                    quiet = min(quiet, _steps_until(self.arrivals[0][0] - now, first, slope))
                if quiet:
                    self.note(now, quiet, first, slope, growth, batch, features)
                    now += quiet * first + slope * quiet * (quiet - 1) / 2
                    scheduler.skip(quiet)
                    features = self.roofline.features(batch)
                    first = sum(map(float.__mul__, weights, features))
            self.note(now, 1, first, 0.0, 0.0, batch, features)
            now += first
            self.finish(batch, now)
            batch = following if ahead else None
        return self.result()

    def finish(self, batch: Batch, end_ms: float) -> None:
        scheduler, out = self.scheduler, end_ms + self.frontend.delay_ms / 2
        for sequence in batch.firsts:
            number = sequence.number
            if not self.first[number]:
                self.first[number] = out
            else:
                self.gaps.append(out - self.last[number])
        for victim in scheduler.evicted:
            self.last[victim.number] = out
        for sequence in scheduler.finish_step():
            self.last[sequence.number] = out
            if self.next < len(self.requests):
                self.send(out, self.next)
                self.next += 1

    def note(
        self,
        now: float,
        count: int,
        first: float,
        slope: float,
        growth: float,
        batch: Batch,
        features: tuple[float, ...],
    ) -> None:
        scheduler = self.scheduler
        waiting = len(scheduler.waiting)
        self.rows.append(
            (now, count, first, slope, batch.decodes, growth, scheduler.seats_taken, waiting, scheduler.kv_usage)
        )
        self.features.append(features)

    def result(self) -> Run:
        start, count, first, slope, decodes, growth, running, waiting, kv = np.array(self.rows).reshape(-1, 9).T
        counters = self.scheduler.counters
        return Run(
            sent_ms=np.array(self.sent),
            queued_ms=np.array(self.queued),
            first_ms=np.array(self.first),
            last_ms=np.array(self.last),
            output_tokens=np.array([float(one.output_tokens) for one in self.requests]),
            prompt_tokens=np.array([float(one.prompt_tokens) for one in self.requests]),
            steps=Steps(
                start_ms=start,
                count=count,
                first_ms=first,
                slope_ms=slope,
                decodes=decodes,
                features=np.array(self.features),
                growth=growth,
                running=running,
                waiting=waiting,
                kv=kv,
            ),
            gaps_ms=np.array(self.gaps),
            preemptions=counters.preemptions,
            prefix_hits=counters.prefix_hits,
        )


def _steps_until(left_ms: float, first_ms: float, slope_ms: float) -> int:
    """Return how many whole steps end before `left_ms` have passed."""
    if left_ms <= 0:
        return 0
    if slope_ms <= 1e-12 * first_ms:
        steps = left_ms / first_ms if first_ms > 0 else inf
    else:
        half = first_ms - slope_ms / 2
        steps = (sqrt(half * half + 2 * slope_ms * left_ms) - half) / slope_ms
    return int(min(steps, 1e9))
