"""Measures one point on a running server and puts everything about it into the store."""

import asyncio
import dataclasses
import io
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.cores import usable_cores
from memgap.datasets.build import Prompt as DatasetPrompt
from memgap.datasets.build import warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.engine.failure import ServerFailureError
from memgap.host.replicas import Replicas
from memgap.load.latency import summarize
from memgap.load.loop import loop_factory
from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run_load
from memgap.load.workers import run_in_processes, wanted_processes
from memgap.models.synthetic import word
from memgap.profiling.kernel_trace import Kernel, read_kernels
from memgap.redact import redact, redacted
from memgap.session.profile import ProfileMoment
from memgap.session.provenance import hardware, provenance
from memgap.session.watch import StopWatch
from memgap.stats.steady import steady_summary
from memgap.store.points import SCHEMA, PointStore, csv_gz
from memgap.telemetry import sampler, startup, window
from memgap.telemetry.histograms import server_latencies
from memgap.telemetry.prometheus import Page
from memgap.telemetry.sampler import Sampler, fetch_pages
from memgap.verdict import judge
from memgap.verdict.evidence import Evidence

FAILED_SHARE = 0.05
"""A point with a larger share of failed requests has the status "request_errors"."""
COUNTERS_SETTLE_S = 0.2
"""An engine's counters follow its last token by a moment."""

Point = dict[str, Any]


class Measurement:
    """What measures points of one session: the server, the datasets, the store.

    `neighbours` gives process ids of other servers of ours that idle on the same GPU.
    """

    def __init__(
        self,
        server: Replicas,
        store: PointStore,
        datasets: Path,
        scratch: Path,
        interval_s: float,
        remeasured_for: list[str],
        neighbours: Callable[[], list[int]] = list,
    ) -> None:
        self._server = server
        self._store = store
        self._datasets = datasets
        self._scratch = scratch
        self._interval_s = interval_s
        self._remeasured_for = remeasured_for
        self._neighbours = neighbours

    def measure(
        self, key: str, record: Mapping[str, Any], watch: StopWatch, on_progress: Callable[[int, int], None]
    ) -> Point:
        """Send the point's load and store what came of it, a failure too; returns its point.json.

        Raises StoppedError where the session has to stop: then nothing is stored.
        """
        load = record["load"]
        prompts, warmup, due_s = self._requests(record)
        sent = {name: value for name, value in load.items() if name != "client_processes"}
        plan = LoadPlan.from_record(sent, record["model"]["name"], self._server.api_key)
        samples_file = self._scratch / f"{key}.samples.csv"
        emptied = self._server.reset_prefix_caches()
        urls, adapter = self._server.urls, record["engine"]["adapter"]
        mps = [pid for pid in (self._server.mps_pid,) if pid is not None]
        pids, own = self._server.pids, mps + self._neighbours()
        machine, gpus = self._hardware(), self._server.gpus.ids
        with Sampler(urls, adapter, pids, own, self._interval_s, samples_file, gpus) as collecting:
            collecting.wait_for_first_row()
            before: Page = {}
            moment = record["server"].get("profile")
            profile = ProfileMoment(urls, self._server.api_key, moment) if moment else None

            def read_counters() -> None:
                time.sleep(COUNTERS_SETTLE_S)
                before.update(fetch_pages(urls, timeout_s=10))
                if profile is not None:
                    profile.begin()

            async def send(abort: asyncio.Event) -> LoadResult:
                return await self._send(key, record, plan, prompts, warmup, due_s, on_progress, abort, read_counters)

            result = _run(send, watch)
            if profile is not None:
                profile.finish()
            watch.check()
            failed = any(one.status not in ("ok", "short") for one in result.results)
            hangs = failed and not self._server.settle()
            time.sleep(max(COUNTERS_SETTLE_S, self._interval_s))
            after = fetch_pages(urls, timeout_s=10)
        rows = collecting.rows(result.start_monotonic_s)
        samples_file.unlink(missing_ok=True)
        summary = summarize(result)
        summary.update(window.summarise(rows, result.duration_s, int(summary.get("output_tokens", 0))))
        summary.update(steady_summary(result, plan.arrival, rows))
        engine = self._server.adapter
        summary.update(_counter_changes(engine.metrics_sample(before), engine.metrics_sample(after)))
        summary.update(server_latencies(before, after, engine.latency_histograms))
        status, error = self._outcome(summary, result, hangs)
        verdict = judge(Evidence(record, summary, dataclasses.asdict(result.health), machine))
        point = self.point(key, record, status, error, [one.check for one in verdict.reasons], summary)
        point["verdict"] = verdict.as_dict()
        if own_values := window.by_gpu(rows, result.duration_s):
            point["gpus"] = own_values
        point["window"] = {
            "start_unix_s": result.start_unix_s,
            "end_unix_s": result.start_unix_s + result.duration_s,
            "duration_s": result.duration_s,
        }
        point["prefix_cache_emptied"] = emptied
        point["client"] = {
            **dataclasses.asdict(result.health),
            "token_source": result.token_source,
            "ended_early": result.ended_early,
        }
        files = self._files(result, rows)
        if profile is not None:
            point["profile"], files["kernels.csv.gz"] = self._kernels(profile)
        self._complete(point, files)
        self._store.write(key, point, files)
        return point

    def _requests(self, record: Mapping[str, Any]) -> tuple[list[Prompt], list[Prompt], NDArray[np.float64] | None]:
        """Return the requests of a point, those of its warm-up, and the times of a trace."""
        load = record["load"]
        stored = load_dataset(self._datasets / f"{record['dataset']['key']}.npz")
        measured = stored.prompts[: load["requests"]]
        prompts = as_sent(measured, record, self._server)
        warmup = as_sent(warmup_prompts(stored.spec, n=load["warmup_requests"], like=measured), record, self._server)
        due_s = np.array([one.due_s for one in measured], dtype=np.float64) if load["arrival"] == "trace" else None
        return prompts, warmup, due_s

    async def _send(
        self,
        key: str,
        record: Mapping[str, Any],
        plan: LoadPlan,
        prompts: list[Prompt],
        warmup: list[Prompt],
        due_s: NDArray[np.float64] | None,
        on_progress: Callable[[int, int], None],
        abort: asyncio.Event,
        before_window: Callable[[], None],
    ) -> LoadResult:
        """Send the warm-up, call `before_window`, send the load and return what came of it."""
        urls = self._server.urls
        processes = record["load"].get("client_processes") or wanted_processes(plan, usable_cores())
        if prompts[0].conversation is not None:
            processes = 1  # the turns of a conversation follow one another in one process
        if processes == 1:
            return await run_load(plan, prompts, urls, on_progress, abort, warmup, before_window, due_s)
        folder = self._scratch / f"{key}.clients"
        return await run_in_processes(
            plan, prompts, urls, processes, folder, on_progress, abort, warmup, before_window, due_s
        )

    def _complete(self, point: Point, files: dict[str, bytes]) -> None:
        """Add what another kind of measurement has to say, before the point is stored."""

    def _kernels(self, profile: ProfileMoment) -> tuple[dict[str, Any], bytes]:
        """Return what is known of the profiled moment, and its kernels as a file."""
        error, kernels = profile.error, list[Kernel]()
        try:
            kernels = read_kernels(self._server.profile_folders)
        except ValueError as problem:
            error = str(problem)
        for folder in self._server.profile_folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not kernels:
            error = error or "the profiler saw no kernel"
        rows = [{**dataclasses.asdict(one), "start_s": f"{one.start_s:.7f}"} for one in kernels]
        columns = [field.name for field in dataclasses.fields(Kernel)]
        return {"source": "torch.profiler", "kernels": len(kernels), "error": error}, csv_gz(rows, columns)

    def record_failure(self, key: str, record: Mapping[str, Any], failure: ServerFailureError) -> Point:
        """Store a point whose server did not start or died before the load; returns its point.json."""
        error = {"kind": failure.kind, "message": str(failure), "log_tail": failure.log_tail}
        point = self.point(key, record, failure.kind, error, [], {})
        self._store.write(key, point, {"server.log": self._server.log_tail(2000).encode()})
        return point

    def point(
        self,
        key: str,
        record: Mapping[str, Any],
        status: str,
        error: Mapping[str, str] | None,
        flags: list[str],
        summary: Mapping[str, float],
    ) -> Point:
        """Return the point.json of a measurement; its files are described in docs/figures.md."""
        facts = self._server.facts
        secrets = [self._server.api_key] if self._server.api_key else []
        return {
            "schema": SCHEMA,
            "key": key,
            "record": dict(record),
            "status": status,
            "flags": flags,
            "error": redacted(error, secrets),
            "summary": {name: value for name, value in summary.items() if np.isfinite(value)},
            "engine": {
                **redacted(dataclasses.asdict(facts), secrets),
                "start_s": self._server.start_s,
                "kv_pool_tokens_by_replica": [one.facts.kv_pool_tokens for one in self._server.servers],
            },
            "hardware": self._hardware(),
            "remeasured_for": self._remeasured_for,
            "provenance": provenance(record["engine"]["package"], facts.version, self._server.commands),
        }

    def _hardware(self) -> dict[str, Any]:
        return hardware(self._server.gpus, self._server.gpus_needed)

    def _outcome(
        self, summary: Mapping[str, float], result: LoadResult, hangs: bool
    ) -> tuple[str, dict[str, str] | None]:
        failed, sent = summary["requests_failed"], summary["requests_sent"]
        if not self._server.alive and not hangs:
            death = self._server.death()
            return death.kind, {"kind": death.kind, "message": str(death), "log_tail": death.log_tail}
        if failed <= FAILED_SHARE * sent and summary["requests_completed"] > 0:
            return "ok", None
        statuses = sorted({one.status for one in result.results if one.status != "ok"})
        kind = "client_timeout" if hangs or statuses == ["timeout"] else "request_errors"
        first = next((one.error for one in result.results if one.status != "ok" and one.error), "")
        message = (
            f"{failed:.0f} of {sent:.0f} requests failed ({', '.join(statuses)}); the first: {first or 'no message'}"
        )
        if hangs:
            message += "; the server no longer answered its health check and was stopped"
        return kind, {"kind": kind, "message": message, "log_tail": self._server.log_tail()}

    def _files(self, result: LoadResult, rows: list[dict[str, float]]) -> dict[str, bytes]:
        columns = sampler.columns_of(rows)
        return {
            **result_files(result, [self._server.api_key]),
            "telemetry.csv.gz": csv_gz(rows, columns),
            "startup.csv.gz": csv_gz(self._server.startup_rows, list(startup.COLUMNS)),
            "server.log": self._server.log_tail(2000).encode(),
        }


def result_files(result: LoadResult, secrets: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the requests and the token events of a point as files, with secrets redacted in what a server answered."""
    requests = [
        {**dataclasses.asdict(one), **({"error": redact(one.error, secrets)} if one.error else {})}
        for one in result.results
    ]
    tokens = io.BytesIO()
    np.savez_compressed(tokens, request=result.events.request, time_s=result.events.time_s, tokens=result.events.tokens)
    return {
        "requests.csv.gz": csv_gz(requests, list(requests[0]) if requests else ["index"]),
        "tokens.npz": tokens.getvalue(),
    }


def _run(send: Callable[[asyncio.Event], Awaitable[LoadResult]], watch: StopWatch) -> LoadResult:
    """Run the load in an event loop of its own; a stop of the session ends it early."""

    async def with_abort() -> LoadResult:
        abort = asyncio.Event()
        watch.attach(abort)
        try:
            return await send(abort)
        finally:
            watch.detach()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(with_abort())


def as_sent(prompts: list[DatasetPrompt], record: Mapping[str, Any], server: Replicas) -> list[Prompt]:
    """Return prompts as token ids, or for the chat endpoint as the text that these ids stand for."""
    if record["load"]["endpoint"] == "completions":
        return [Prompt(one.output_tokens, one.token_ids, None, one.conversation, one.group) for one in prompts]
    if record["model"]["weights"] == "synthetic":
        texts = [" ".join(map(word, one.token_ids)) for one in prompts]
    else:
        texts = [server.detokenize(record["model"]["name"], one.token_ids) for one in prompts]
    return [
        Prompt(one.output_tokens, None, text, one.conversation, one.group)
        for one, text in zip(prompts, texts, strict=True)
    ]


def _counter_changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return how far the engine's counters moved while the load ran."""

    def change(column: str) -> float | None:
        return after[column] - before[column] if column in before and column in after else None

    changes = {
        "preemptions": change("num_preemptions"),
        "server_prompt_tokens": change("prompt_tokens"),
        "server_output_tokens": change("generation_tokens"),
        "prefix_cache_queries": change("prefix_cache_queries"),
        "prefix_cache_hits": change("prefix_cache_hits"),
    }
    return {name: value for name, value in changes.items() if value is not None}
