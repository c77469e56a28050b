"""How far does a throughput move when a point has half or twice as many requests?

`python benchmarks/steady_throughput.py [--caps 1,4,16,64,256,1024] [--per-seat 8] [--draws 5]` sends closed loops of
log-normal output lengths to the simulated engine with half, once and twice the requests, and prints for the whole
window and for the steady part how far half and twice are from once, and once from the truth. Three parts:

- The engine's scheduler on a clock of its own, which moves by the durations of its steps, so that no other work on the
  machine enters. Prompts cost time, and a seat is empty for a step before its next request comes. The truth is a run of
  16 times the requests; of several draws of lengths the farthest values are printed.
- The real client against the real server. Nothing but steps takes time there, so that the truth is known.
- Recorded points cut short: the engine's own counter of tokens up to the moment at which half of the requests had been
  sent, against all of it (`recorded/h200`, telemetry of the points with at least 8 requests a seat).
"""

import argparse
import csv
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from memgap.load.latency import summarize
from memgap.load.records import ClientHealth, LoadPlan, LoadResult, Prompt, RequestResult, TokenEvents
from memgap.load.runner import run
from memgap.load.steady import steady_summary
from memgap.mock_server.launch import MockServer
from memgap.scheduling.scheduler import Scheduler
from memgap.scheduling.scheduler import Sequence as InEngine
from memgap.stats.series import Series, mser

REPOSITORY = Path(__file__).resolve().parents[1]
STEP_MS, PER_SEQUENCE_MS = 10.0, 0.12
LEAST_REQUESTS = 24
PROMPT_TOKENS = 8
PREFILL_MS = 1.0
"""Of a prompt, in the engine's own time."""
LONG = 16
LEAST_PER_SEAT = 8
"""Of recorded points: half of them are the 4 a seat that a load in seconds has at least."""
HEALTH = ClientHealth(0.0, 0.0, 0.0, None, None, 0, 0, 0, 0.0, "none")
WINDOW, STEADY = "output_throughput_tok_s", "steady_output_throughput_tok_s"


def prompts(count: int, seed: int = 7) -> list[Prompt]:
    """Return requests of 1 to 200 output tokens, 34 on average, the same ones first however many there are."""
    lengths = np.random.default_rng(seed).lognormal(3.2, 0.8, count)
    return [
        Prompt(int(min(max(one, 1), 200)), [10 + index % 1000] * PROMPT_TOKENS)
        for index, one in enumerate(lengths.tolist())
    ]


@dataclass
class Reply:
    """Where the tokens of a request go: their moments, in seconds of the simulated clock."""

    clock: "Clock"
    sent_s: float
    times_s: list[float] = field(default_factory=list)

    def token(self, index: int, last: bool) -> None:
        """See Sink: a seat that is free sends the next request."""
        self.times_s.append(self.clock.now_s)
        if last:
            self.clock.send()


class Clock:
    """A closed loop on the simulated engine's scheduler, in the time of its steps."""

    def __init__(self, cap: int, asked: Sequence[Prompt]) -> None:
        self.now_s = 0.0
        self.replies: list[Reply] = []
        self._left = iter(asked)
        self._coming: list[InEngine] = []
        self._scheduler = Scheduler(
            max_num_seqs=cap,
            num_blocks=64 * cap,
            block_size=16,
        )
        for _ in range(cap):
            self.send()

    def send(self) -> None:
        """Send the next request, if there is one."""
        prompt = next(self._left, None)
        if prompt is not None:
            self.replies.append(Reply(self, self.now_s))
            self._coming.append(InEngine(PROMPT_TOKENS, prompt.output_tokens, self.replies[-1]))

    def run(self) -> LoadResult:
        """Take step after step until nothing is left."""
        while (batch := self._scheduler.begin_step()) is not None or self._coming:
            while self._coming:  # sent when a step ended, they come when the next one has begun
                self._scheduler.add(self._coming.pop(0))
            if batch is not None:
                per_sequence_ms = PER_SEQUENCE_MS * (batch.decodes + len(batch.chunks))
                self.now_s += (STEP_MS + per_sequence_ms + PREFILL_MS * batch.chunk_tokens / PROMPT_TOKENS) / 1e3
                self._scheduler.finish_step()
        results = []
        for number, one in enumerate(self.replies):
            first_s, last_s = one.times_s[0], one.times_s[-1]
            result = RequestResult(number, 0, None, one.sent_s, first_s, last_s, last_s, status="ok")
            result.prompt_tokens_asked, result.output_tokens_seen = PROMPT_TOKENS, len(one.times_s)
            results.append(result)
        counts = [len(one.times_s) for one in self.replies]
        request, time_s = (
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            [t for one in self.replies for t in one.times_s],
        )
        events = TokenEvents(request, np.asarray(time_s), np.ones(len(time_s), np.int32))
        return LoadResult(results, events, [], 0.0, 0.0, self.now_s, "token_ids", HEALTH)


def counted(cap: int, requests: int, seed: int) -> dict[str, float]:
    """Return the summary of a closed loop in the simulated engine's own time."""
    result = Clock(cap, prompts(requests, seed)).run()
    return {**summarize(result), **steady_summary(result, "closed", [], cap)}


def in_its_own_time(caps: Sequence[int], per_seat: int, draws: int) -> None:
    """Print the table of the scheduler on its own clock: of each move the farthest of several draws of lengths."""
    print("| cap | requests | whole window: half, twice | steady part: half, twice | steady part against truth |")
    print("| --- | --- | --- | --- | --- |")
    for cap in caps:
        once = max(per_seat * cap, LEAST_REQUESTS)
        truth = counted(cap, LONG * once, draws)[STEADY]
        runs = [[counted(cap, one, seed) for one in (once // 2, once, 2 * once)] for seed in range(draws)]
        cells = [
            ", ".join(f"{max((run[place][name] / run[1][name] - 1 for run in runs), key=abs):+.1%}" for place in (0, 2))
            for name in (WINDOW, STEADY)
        ]
        off = max((run[1][STEADY] / truth - 1 for run in runs), key=abs)
        print(f"| {cap} | {once} | {' | '.join(cells)} | {off:+.1%} |", flush=True)


def measured(cap: int, requests: int) -> dict[str, float]:
    """Return the summary of a closed loop on the simulated engine."""
    flags = ["--step-base-ms", str(STEP_MS), "--step-per-seq-ms", str(PER_SEQUENCE_MS), "--max-num-seqs", str(cap)]
    with MockServer(*flags, "--kv-tokens", str(512 * cap)) as mock:
        plan = LoadPlan("mock", "closed", requests, concurrency=cap, warmup_requests=min(cap, 8))
        result = run(plan, prompts(requests), [mock.url], warmup_prompts=prompts(8))
    return {**summarize(result), **steady_summary(result, "closed", [], cap)}


def simulated(caps: Sequence[int], per_seat: int) -> None:
    """Print the table of the simulated engine."""
    print("| cap | requests | seats taken | whole window, tok/s | half, twice | steady part | half, twice | truth |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for cap in caps:
        once = max(per_seat * cap, LEAST_REQUESTS)
        half, middle, twice = (measured(cap, requests) for requests in (once // 2, once, 2 * once))
        truth = cap / (STEP_MS + PER_SEQUENCE_MS * cap) * 1e3
        cells = []
        for name in (WINDOW, STEADY):
            moves = [one.get(name, math.nan) / middle.get(name, math.nan) - 1 for one in (half, twice)]
            cells += [f"{middle.get(name, math.nan):.0f}", ", ".join(f"{one:+.1%}" for one in moves)]
        off = middle.get(STEADY, math.nan) / truth - 1
        taken = f"{middle['window_seats_taken_fraction']:.2f}, {middle['seats_taken_fraction']:.2f}"
        print(f"| {cap} | {once} | {taken} | {' | '.join(cells)} | {truth:.0f} ({off:+.1%}) |", flush=True)


def recorded() -> Iterator[tuple[str, int, int, float, float, float, float]]:
    """Yield for each recorded closed loop its model, cap and requests, and the output throughput of the whole window
    and the steady part: cut short, and all of it.
    """
    for path in sorted((REPOSITORY / "recorded/h200").glob("*-warm-*.jsonl")):
        series = _series(path.with_name(path.name.replace(".jsonl", ".telemetry.csv.gz")))
        for line in path.read_text(encoding="utf-8").splitlines():
            point = json.loads(line)
            load, summary = point["record"]["load"], point["summary"]
            requests, seats = load["requests"], load.get("concurrency") or 0
            rows = series.get(point["key"])
            if point["status"] != "ok" or load["arrival"] != "closed" or requests < LEAST_PER_SEAT * seats or not rows:
                continue
            end_s = summary.get("steady_end_s")
            if end_s is None:
                continue
            time_s, made = (np.asarray(column) for column in zip(*rows, strict=True))
            turnover_s = end_s * seats / max(requests - seats, 1)
            duration_s = summary["duration_s"]
            whole = [_rate(time_s, made, 0.0, until_s) for until_s in (end_s / 2, duration_s)]
            part = [_steady_rate(time_s, made, turnover_s, until_s) for until_s in (end_s / 2, end_s)]
            yield point["record"]["model"]["name"], point["record"]["batch_cap"], requests, *whole, *part


def _series(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return (time in s, output tokens so far) of each point's telemetry."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("generation_tokens") and row.get("time_s")]
    return {
        key: [(float(one["time_s"]), float(one["generation_tokens"])) for one in mine]
        for key, mine in groupby(rows, key=lambda row: row["key"])
    }


def _rate(time_s: Series, made: Series, start_s: float, end_s: float) -> float:
    begun, ended = np.interp([start_s, end_s], time_s, made)
    return float((ended - begun) / (end_s - start_s)) if end_s > start_s else math.nan


def _steady_rate(time_s: Series, made: Series, turnover_s: float, end_s: float) -> float:
    edges = np.linspace(0.0, end_s, 101)
    rates = np.asarray([_rate(time_s, made, start, end) for start, end in pairwise(edges.tolist())])
    start_s = max(mser(rates) * end_s / 100, turnover_s)
    return _rate(time_s, made, start_s, end_s)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caps", default="1,4,16,64,256,1024")
    parser.add_argument("--per-seat", type=int, default=8)
    parser.add_argument("--draws", type=int, default=5, help="draws of lengths in the simulated engine's own time")
    parser.add_argument("--own-time", action="store_true", help="leave the real client and server out")
    options = parser.parse_args()
    caps = [int(one) for one in options.caps.split(",") if one]
    in_its_own_time(caps, options.per_seat, options.draws)
    if caps and not options.own_time:
        print()
        simulated(caps, options.per_seat)
    print(
        "\n| recorded model | cap | requests | whole window, first half against all | steady part, half against all |"
    )
    print("| --- | --- | --- | --- | --- |")
    for model, cap, requests, window_short, window, steady_short, steady in recorded():
        moves = f"{window_short / window - 1:+.1%} | {steady_short / steady - 1:+.1%}"
        print(f"| {model} | {cap} | {requests} | {moves} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
