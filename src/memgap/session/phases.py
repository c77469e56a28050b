"""The phases of measurements: empty caches, warm up, a window under load, a restart, a worker's outcome."""

import asyncio
import dataclasses
import functools
import io
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from memgap.cores import usable_cores
from memgap.datasets.build import Prompt as DatasetPrompt
from memgap.datasets.build import warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.datasets.spec import WARMUP_RESERVE
from memgap.engine.base import EngineAdapter
from memgap.engine.given import answering
from memgap.engine.prometheus import Page
from memgap.engine.speculation import speculation_summary
from memgap.engine.transfers import transfer_summary
from memgap.host.protocol import Server
from memgap.host.worker import Worker
from memgap.load.latency import summarize
from memgap.load.loop import loop_factory
from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run_load
from memgap.load.silence import silence_summary
from memgap.load.steady import steady_summary
from memgap.load.workers import run_in_processes, wanted_processes
from memgap.models.synthetic import speaks_words, word
from memgap.profiling.kept import kept_traces
from memgap.profiling.kernel_trace import Kernel, read_kernels
from memgap.redact import redact
from memgap.session.measuring import Phase, PointRun, Record
from memgap.session.profile import ProfileMoment
from memgap.session.watch import StopWatch
from memgap.stats.layouts import Lengths, paged
from memgap.store.points import csv_gz
from memgap.telemetry import startup, window
from memgap.telemetry.histograms import server_latencies
from memgap.telemetry.sampler import columns_of, fetch_pages
from memgap.verdict.evidence import Evidence

FAILED_SHARE = 0.05
"""A point with a larger share of failed requests has the status "request_errors"."""
COUNTERS_SETTLE_S = 0.2
"""An engine's counters follow its last token by a moment."""
CLIENT_FAILED = "client_failed"
"""Status of a point whose client ended before its last request, without the server being to blame."""

UNTIMED: Mapping[str, Any] = dict.fromkeys(("seconds", "least_seconds", "interval_fraction", "min_requests"))
"""What a load plan has that is not bounded in time."""

ServerRun = PointRun[Server]
W = TypeVar("W", bound=Worker)


@dataclass(frozen=True)
class Load:
    """What is asked of a server: the measured requests, those of the warm-up, and the times of a trace."""

    plan: LoadPlan
    prompts: list[Prompt]
    warmup: list[Prompt]
    due_s: NDArray[np.float64] | None = None

    def without_warmup(self) -> "Load":
        """Return it with the measured requests alone."""
        return Load(dataclasses.replace(self.plan, warmup_requests=0), self.prompts, [], self.due_s)


@dataclass(frozen=True)
class Asked:
    """What a client says of its load; `death`: why it ended before its work was done, and its log."""

    result: LoadResult
    death: tuple[str, str] | None = None


LoadOf = Callable[[ServerRun], Load]
Client = Callable[[ServerRun, Load, Callable[[], None], asyncio.Event], Awaitable[Asked]]
"""Sends a load: it calls the function between warm-up and window, with nothing in flight, and ends where the event is
set."""


def load_plan(run: ServerRun) -> LoadPlan:
    """Return how the load of a point is sent."""
    sent = {name: value for name, value in run.record["load"].items() if name != "client_processes"}
    plan = LoadPlan.from_record(sent, run.record["model"]["name"], run.host.api_key)
    return dataclasses.replace(plan, token_ids=plan.endpoint in run.host.adapter.token_id_endpoints)


def dataset_load(run: ServerRun) -> Load:
    """Return the first requests of the point's dataset, with other ones like them for the warm-up."""
    load = run.record["load"]
    stored = load_dataset(run.place.datasets / f"{run.record['dataset']['key']}.npz")
    measured = stored.prompts[: load["requests"]]
    warmup = as_sent(warmup_prompts(stored.spec, n=load["warmup_requests"], like=measured), run.record, run.host)
    due_s = np.array([one.due_s for one in measured], dtype=np.float64) if load["arrival"] == "trace" else None
    return Load(load_plan(run), as_sent(measured, run.record, run.host), warmup, due_s)


def trace_summary(run: ServerRun) -> dict[str, float]:
    """Return how many rows of the replayed time a trace's limits left out, where requests come at its times."""
    if run.record["load"]["arrival"] != "trace":
        return {}
    stored = load_dataset(run.place.datasets / f"{run.record['dataset']['key']}.npz")
    read = stored.statistics.get("trace") or {}
    names = {"trace_rows": "window_rows", "trace_rows_sent": "window_sent", "trace_rate_req_s": "window_rate_req_s"}
    return {ours: float(read[theirs]) for ours, theirs in names.items() if read.get(theirs) is not None}


def seats_of(record: Record) -> int | None:
    """Return how many requests are in the engine at a time by the point's own rule, None where nothing bounds them.

    The engine's seats are of choices, a closed loop's of requests.
    """
    load = record["load"]
    if load["arrival"] == "closed":
        return int(load["concurrency"])
    if load["arrival"] != "all-at-once":
        return None
    return max(int(record["batch_cap"]) * answering(record["server"]) // int(load.get("samples", 1)), 1)


def as_sent(prompts: list[DatasetPrompt], record: Record, server: Server) -> list[Prompt]:
    """Return prompts as token ids, or as the text that these stand for where the load asks for that or for chats; texts
    stay as they are.
    """
    if prompts and prompts[0].text is not None:
        return [Prompt(one.output_tokens, None, one.text, one.conversation, one.group) for one in prompts]
    load = record["load"]
    if load["endpoint"] == "completions" and load.get("prompt_form") != "text":
        return [Prompt(one.output_tokens, one.token_ids, None, one.conversation, one.group) for one in prompts]
    if speaks_words(record["model"]):
        texts = [" ".join(map(word, one.token_ids)) for one in prompts]
    else:
        texts = [server.detokenize(record["model"]["name"], one.token_ids) for one in prompts]
    return [
        Prompt(one.output_tokens, None, text, one.conversation, one.group, len(one.token_ids))
        for one, text in zip(prompts, texts, strict=True)
    ]


async def own_client(run: ServerRun, load: Load, before_window: Callable[[], None], abort: asyncio.Event) -> Asked:
    """Send the load from this process, or from as many as it takes."""
    processes = run.record["load"].get("client_processes") or wanted_processes(load.plan, usable_cores())
    if load.prompts[0].conversation is not None:
        processes = 1  # the turns of a conversation follow one another in one process
    after = (run.on_progress, abort, load.warmup, before_window, load.due_s)
    if processes == 1:
        return Asked(await run_load(load.plan, load.prompts, run.host.urls, *after))
    folder = run.place.scratch / f"{run.key}.clients"
    return Asked(await run_in_processes(load.plan, load.prompts, run.host.urls, processes, folder, *after))


def probe_steps(run: ServerRun, numbers: Sequence[int]) -> dict[int, float]:
    """Return the seconds of a step with the given numbers of requests in flight, each from one request a seat.

    They are warm-up requests, so nothing measured profits. A number that the server does not stand is left out with all
    after it; when that is known, the server is well or gone.
    """
    stored = load_dataset(run.place.datasets / f"{run.record['dataset']['key']}.npz")
    found = {}
    for at_once in numbers:
        many = min(at_once, WARMUP_RESERVE)
        prompts = as_sent(warmup_prompts(stored.spec, n=many, like=stored.prompts), run.record, run.host)
        plan = dataclasses.replace(load_plan(run), requests=many, concurrency=many, warmup_requests=0, **UNTIMED)
        send = functools.partial(run_load, plan, prompts, run.host.urls, None)
        result = in_loop(send, run.place.watch)
        run.place.watch.check()
        if any(one.status not in ("ok", "short") for one in result.results):
            run.host.settle()
            break
        if step_ms := summarize(result).get("tpot_mean_ms"):
            found[at_once] = step_ms / 1e3
    return found


async def send_warmup(run: ServerRun, load: Load, abort: asyncio.Event) -> None:
    """Send the warm-up alone, for a client that has none."""
    if load.warmup:
        alone = dataclasses.replace(load.plan, requests=len(load.warmup), warmup_requests=0, think_time_s=0.0)
        await run_load(alone, load.warmup, run.host.urls, abort=abort)


@dataclass(frozen=True)
class ResetCaches(Phase[Any]):
    """Empty what would let the point profit from what the host did before."""

    def run(self, run: PointRun[Any]) -> None:
        """See Phase."""
        run.emptied = run.host.reset_caches()


@dataclass(frozen=True)
class WarmUp(Phase[Server]):
    """Send the warm-up and nothing else."""

    load: LoadOf = dataset_load

    def run(self, run: ServerRun) -> None:
        """See Phase."""
        load = self.load(run)
        in_loop(lambda abort: send_warmup(run, load, abort), run.place.watch)
        run.place.watch.check()


@dataclass(frozen=True)
class Restart(Phase[Any]):
    """Stop the host and start it again; the sampling goes on with what it is then."""

    def run(self, run: PointRun[Any]) -> None:
        """See Phase."""
        began_s = time.monotonic()
        run.host.stop()
        stopped_s = time.monotonic()
        run.start()
        run.rebind()
        run.emptied = True
        lasted = {"stop_s": stopped_s - began_s, "start_s": run.host.start_s}
        run.added.setdefault("restarts", []).append(lasted)


@dataclass(frozen=True)
class Collect(Phase[W]):
    """Wait for what a worker says of the point; `read` puts it into the run, when it is there."""

    read: Callable[[PointRun[W], Mapping[str, Any]], None]

    def run(self, run: PointRun[W]) -> None:
        """See Phase."""
        outcome = run.host.outcome(run.key, run.place.watch.check)
        if outcome["status"] != "ok":
            run.fail(outcome["status"], outcome["message"], outcome.get("log_tail", run.host.log_tail()))
        run.kept["outcome"] = outcome

    def conclude(self, run: PointRun[W]) -> None:
        """See Phase."""
        if "outcome" in run.kept:
            self.read(run, run.kept["outcome"])


@dataclass
class _Seen:
    """What was measured of a window."""

    plan: LoadPlan
    result: LoadResult
    summary: dict[str, float]
    emptied: bool
    before: Page
    after: Page
    began_s: float
    ended_s: float
    profile: tuple[dict[str, Any], dict[str, bytes]] | None = None
    members: dict[str, tuple[Page, Page]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Window(Phase[Server]):
    """Send a load and look on: requests and tokens, samples of host and GPU, the engine's counters before and after.

    Without `warm_up` the load is sent to the host as it is. A point has one window without a name, or several with one
    each: then names of the summary begin with it ("cold_ttft_mean_ms"), and those of files ("cold.requests.csv.gz").
    """

    name: str = ""
    warm_up: bool = True
    load: LoadOf = dataset_load
    client: Client = own_client

    def run(self, run: ServerRun) -> None:
        """See Phase. A load that fails is a failed point, and its numbers are kept."""
        load = self.load(run) if self.warm_up else self.load(run).without_warmup()
        host, watch, began_s = run.host, run.place.watch, time.monotonic()
        run.know_secrets()
        run.sample()
        before, of_members = Page(), dict[str, Page]()
        moment = run.record["server"].get("profile")
        asked_of = [host.adapter.profile_request(folder) for folder in host.profile_folders]
        profile = ProfileMoment(host.urls, host.api_key, moment, asked_of) if moment else None

        def page_of(url: str) -> Page:
            return fetch_pages([url], 10, host.adapter.metrics_path)

        def before_window() -> None:
            time.sleep(COUNTERS_SETTLE_S)
            before.update(fetch_pages(host.metrics_urls, 10, host.adapter.metrics_path))
            of_members.update({name: page_of(url) for name, url in host.member_urls.items()})
            if profile is not None:
                profile.begin()

        asked = in_loop(lambda abort: self.client(run, load, before_window, abort), watch)
        if profile is not None:
            profile.finish()
        watch.check()
        failed = any(one.status not in ("ok", "short") for one in asked.result.results)
        hangs = failed and not host.settle()
        time.sleep(max(COUNTERS_SETTLE_S, run.place.interval_s))
        after = fetch_pages(host.metrics_urls, 10, host.adapter.metrics_path)
        summary = summarize(asked.result) | silence_summary(asked.result) | trace_summary(run)
        seen = _Seen(load.plan, asked.result, summary, run.emptied, before, after, began_s, time.monotonic())
        for name, url in host.member_urls.items():
            seen.members[name] = of_members.get(name, {}), page_of(url)
        if profile is not None:
            seen.profile = _kernels(host, profile, keep="keep" in moment)
        run.kept.setdefault("windows", {})[self.name] = seen
        run.emptied = False
        _fail(run, asked, summary, hangs)

    def conclude(self, run: ServerRun) -> None:
        """See Phase."""
        windows: dict[str, _Seen] = run.kept.get("windows", {})
        if self.name not in windows:
            return
        seen, summary, result = windows[self.name], windows[self.name].summary, windows[self.name].result
        rows = self._rows(run, windows)
        summary.update(window.summarise(rows, result.duration_s, int(summary.get("output_tokens", 0))))
        if not run.host.metrics_urls:
            del summary["engine_telemetry_gap_s"]  # there are no metrics that could fall silent
        summary.update(steady_summary(result, seen.plan.arrival, rows, seats_of(run.record)))
        engine = run.host.adapter
        summary.update(counter_changes(engine.metrics_sample(seen.before), engine.metrics_sample(seen.after), rows))
        summary.update(server_latencies(seen.before, seen.after, engine.latency_histograms))
        summary.update(transfer_summary(seen.before, seen.after))
        summary.update(speculation_summary(seen.before, seen.after))
        members = {name: _of_member(engine, *pages) for name, pages in seen.members.items()}
        summary.update(run.host.before_the_reply(members))
        if (block := run.host.facts.kv_block_tokens) and seen.plan.samples == 1:
            done = [Lengths(one.prompt_tokens, one.output_tokens) for one in result.results if one.status == "ok"]
            if done:
                summary["kv_waste_fraction"] = paged(done, block).wasted_fraction
        health = dataclasses.asdict(result.health)
        # a window after another one has caches that nobody tried to empty
        emptied = seen.emptied or (None if self.name else False)
        run.evidence.append((self.name, Evidence(run.record, dict(summary), health, run.place.hardware, emptied)))
        said: dict[str, Any] = {
            "window": window_of(result),
            "prefix_cache_emptied": seen.emptied,
            "client": {
                **health,
                "token_source": result.token_source,
                "ended_early": result.ended_early,
                "stopped_by": result.stopped_by,
            },
        }
        files = {**result_files(result, sorted(run.secrets)), "telemetry.csv.gz": csv_gz(rows, columns_of(rows))}
        if own := window.by_gpu(rows, result.duration_s):
            said["gpus"] = own
        if members:
            said["members"] = members
        if seen.profile is not None:
            said["profile"] = seen.profile[0]
            files |= seen.profile[1]
        run.summary |= {f"{self.name}_{name}" if self.name else name: value for name, value in summary.items()}
        run.files |= {f"{self.name}.{name}" if self.name else name: data for name, data in files.items()}
        run.files["startup.csv.gz"] = csv_gz(run.host.startup_rows, list(startup.COLUMNS))
        if self.name:
            run.added.setdefault("windows", {})[self.name] = said
        else:
            run.added |= said

    def _rows(self, run: ServerRun, windows: Mapping[str, _Seen]) -> list[dict[str, float]]:
        """Return the samples from the end of the window before to the beginning of the next one."""
        start_s, names = windows[self.name].result.start_monotonic_s, list(windows)
        place, rows = names.index(self.name), run.rows(windows[self.name].result.start_monotonic_s)
        after_s = windows[names[place - 1]].ended_s - start_s if place else -np.inf
        before_s = windows[names[place + 1]].began_s - start_s if place + 1 < len(names) else np.inf
        return [row for row in rows if after_s < row["time_s"] < before_s]


def _of_member(engine: EngineAdapter, before: Page, after: Page) -> dict[str, float]:
    """Return what one member of a group did in the window, by its own page."""
    changes = counter_changes(engine.metrics_sample(before), engine.metrics_sample(after), ())
    latencies = server_latencies(before, after, engine.latency_histograms)
    return {**changes, **latencies, **transfer_summary(before, after)}


def _fail(run: ServerRun, asked: Asked, summary: Mapping[str, float], hangs: bool) -> None:
    """Say that the point has failed where too much of its load did."""
    if not run.host.alive and not hangs:
        run.fail_with(run.host.death())
        return
    if asked.death is not None and not hangs:
        run.fail(CLIENT_FAILED, *asked.death)
        return
    failed, sent, results = summary["requests_failed"], summary["requests_sent"], asked.result.results
    if failed <= FAILED_SHARE * sent and summary["requests_completed"] > 0:
        return
    statuses = sorted({one.status for one in results if one.status != "ok"})
    kind = "client_timeout" if hangs or statuses == ["timeout"] else "request_errors"
    first = next((one.error for one in results if one.status != "ok" and one.error), "")
    message = f"{failed:.0f} of {sent:.0f} requests failed ({', '.join(statuses)}); the first: {first or 'no message'}"
    if hangs:
        message += "; the server no longer answered its health check and was stopped"
    run.fail(kind, message, run.host.log_tail())


def _kernels(host: Server, profile: ProfileMoment, keep: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what is known of the profiled moment, and its kernels as a file, with the traces where they are kept."""
    error, kernels = profile.error, list[Kernel]()
    try:
        kernels = read_kernels(host.profile_folders)
    except ValueError as problem:
        error = str(problem)
    files, said = dict[str, bytes](), dict[str, Any]()
    if keep:
        traces = [path for folder in host.profile_folders for path in sorted(folder.rglob("*.json*"))]
        files, said = kept_traces({f"trace-{number}": path for number, path in enumerate(traces, start=1)})
    for folder in host.profile_folders:
        shutil.rmtree(folder, ignore_errors=True)
    if not kernels:
        error = error or "the profiler saw no kernel"
    rows = [{**dataclasses.asdict(one), "start_s": f"{one.start_s:.7f}"} for one in kernels]
    columns = [one.name for one in dataclasses.fields(Kernel)]
    files["kernels.csv.gz"] = csv_gz(rows, columns)
    return {"source": "torch.profiler", "kernels": len(kernels), "error": error, **said}, files


def window_of(result: LoadResult) -> dict[str, float]:
    """Return when a load was sent."""
    start_s, duration_s = result.start_unix_s, result.duration_s
    return {"start_unix_s": start_s, "end_unix_s": start_s + duration_s, "duration_s": duration_s}


def result_files(result: LoadResult, secrets: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the requests and the token events of a point as files, with secrets redacted in what a server answered."""
    requests = [
        {**dataclasses.asdict(one), **({"error": redact(one.error, secrets)} if one.error else {})}
        for one in result.results
    ]
    tokens = io.BytesIO()
    np.savez_compressed(tokens, **result.events.columns())  # type: ignore[arg-type]
    return {
        "requests.csv.gz": csv_gz(requests, list(requests[0]) if requests else ["index"]),
        "tokens.npz": tokens.getvalue(),
    }


def in_loop(send: Callable[[asyncio.Event], Awaitable[Any]], watch: StopWatch) -> Any:
    """Run a client in an event loop of its own; a stop of the session ends it early."""

    async def with_abort() -> Any:
        abort = asyncio.Event()
        watch.attach(abort)
        try:
            return await send(abort)
        finally:
            watch.detach()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(with_abort())


def counter_changes(
    before: Mapping[str, float], after: Mapping[str, float], rows: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Return how far the engine's counters moved while the load ran.

    A change that cannot be known of a counter that the engine has is counted (`window.left_out`): on one side it was
    not there or no finite number, as where its page could not be read, or it was set back. `rows` are the samples.
    """
    names = {
        "preemptions": "num_preemptions",
        "server_prompt_tokens": "prompt_tokens",
        "server_output_tokens": "generation_tokens",
        "prefix_cache_queries": "prefix_cache_queries",
        "prefix_cache_hits": "prefix_cache_hits",
        **{f"prompt_tokens_{one}": f"prompt_tokens_{one}" for one in ("computed", "local_hits", "external_hits")},
    }
    moves: dict[str, float] = {}
    for name, column in names.items():
        move = after.get(column, np.nan) - before.get(column, np.nan)
        if move >= 0 and np.isfinite(move):
            moves[name] = move
        elif any(column in one for one in (before, after, *rows)):
            moves[window.left_out(column)] = 1.0
    return moves
