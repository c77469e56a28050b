"""Runs Locust as a process of its own on a list of requests, and reads what it leaves as a result of a load."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memgap.canonical import canonical_json
from memgap.host.supervised import Supervised
from memgap.load.payload import PATHS, request_body
from memgap.load.records import ClientHealth, LoadPlan, LoadResult, Prompt, RequestResult, TokenEvents

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
USER_CLASS = "Asker"
POLL_S = 0.1
AT_ONCE_S = 1e-4
"""Two events that Locust saw so close to one another came in one read: handling one takes it about half of that."""
CSV_FILES = ("stats", "stats_history", "failures", "exceptions")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LocustJob:
    """What Locust has to do: `picks` says which prompt each request takes."""

    plan: LoadPlan
    prompts: Sequence[Prompt]
    picks: Sequence[int]
    users: int
    spawn_rate_users_s: float
    stream: bool


@dataclass
class LocustRun:
    """What came of it. `death` says why Locust ended before its work was done, None where it did not; `files` are its
    own CSV files by name, as they are. `left_out` counts lines about requests that say nothing whole.
    """

    result: LoadResult
    command: list[str]
    version: str | None = None
    death: str | None = None
    log: str = ""
    rows: Sequence[Row] = ()
    left_out: int = 0
    files: dict[str, bytes] = field(default_factory=dict)


async def run_locust(
    job: LocustJob,
    python: str,
    url: str,
    folder: Path,
    on_progress: Callable[[int, int], None],
    abort: asyncio.Event,
) -> LocustRun:
    """Run Locust to its end, or until `abort` is set; failed requests and a dead Locust are results, not exceptions."""
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(canonical_json(_contents(job)), encoding="utf-8")
    command = locust_command(job, python, url, folder / "locust")
    log = folder / "locust.log"
    process = Supervised(command, log, _environment(folder, job.plan.api_key))
    try:
        while process.alive and not abort.is_set():
            on_progress(max(_count_lines(folder / "rows.jsonl") - 1, 0), len(job.picks))
            await asyncio.sleep(POLL_S)
    finally:
        process.stop()
    return read_run(job, command, folder, log.read_text(encoding="utf-8", errors="replace"))


def locust_command(job: LocustJob, python: str, url: str, csv: Path) -> list[str]:
    """Return Locust's command line; the API key is not in it."""
    return [
        *(python, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", url, "--users", str(job.users), "--spawn-rate", f"{job.spawn_rate_users_s:g}"),
        *("--csv", str(csv), "--csv-full-history", "--exit-code-on-error", "0", USER_CLASS),
    ]


def _contents(job: LocustJob) -> dict[str, Any]:
    bodies = [request_body(job.plan, prompt) for prompt in job.prompts]
    if not job.stream:
        for body in bodies:
            body["stream"] = False
            del body["stream_options"]
    return {
        "path": PATHS[job.plan.endpoint],
        "bodies": bodies,
        "picks": list(job.picks),
        "stream": job.stream,
        "timeout_s": job.plan.request_timeout_s,
        "think_time_s": job.plan.think_time_s,
        "most_refused": job.plan.max_consecutive_refused,
    }


def _environment(folder: Path, api_key: str | None) -> dict[str, str]:
    secret = {} if api_key is None else {"MEMGAP_LOCUST_API_KEY": api_key}
    return {"MEMGAP_LOCUST_JOB": str(folder.absolute()), "PYTHONUNBUFFERED": "1", **secret}


def _count_lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def read_run(job: LocustJob, command: list[str], folder: Path, log: str) -> LocustRun:
    """Return what Locust left in its folder; what it did not come to is "not_sent" in the result."""
    lines, told = _lines(folder / "rows.jsonl")
    head = lines[0] if lines and "start_ns" in lines[0] else {}
    rows = [one for one in lines if _whole(one, len(job.picks))]
    try:
        end = json.loads((folder / "end.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        end = {}
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "no message")
    return LocustRun(
        result=_result(job, head, rows, end),
        command=command,
        version=head.get("locust"),
        death=None if end else f"Locust ended before its last request: {last.strip()}",
        log=log,
        rows=rows,
        left_out=told - bool(head) - len(rows),
        files={
            f"locust_{kind}.csv": (folder / f"locust_{kind}.csv").read_bytes()
            for kind in CSV_FILES
            if (folder / f"locust_{kind}.csv").exists()
        },
    )


def _whole(row: Row, requests: int) -> bool:
    """Whether a line says what became of one of the requests."""
    known = isinstance(row.get("index"), int) and 0 <= row["index"] < requests
    times = all(isinstance(row.get(name), int) for name in ("sent_ns", "end_ns"))
    return known and times and isinstance(row.get("status"), str) and "times_ns" in row and "tokens" in row


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the objects of a file of JSON lines, and how many lines there are: one that was cut off, or is no object,
    is left out."""
    try:
        *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return [], 0
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            found += [row] if isinstance(row, dict) else []
    return found, len(lines) + bool(last)


def _result(job: LocustJob, head: Row, rows: Sequence[Row], end: Row) -> LoadResult:
    start_ns = int(head.get("start_ns", 0))
    last_ns = max((int(row["end_ns"]) for row in rows), default=start_ns)
    duration_s = (max(last_ns, int(end.get("end_ns", 0))) - start_ns) / 1e9
    by_index = {int(row["index"]): row for row in rows}
    results = []
    requests: list[int] = []
    times_ns: list[int] = []
    tokens: list[int] = []
    at_once = 0
    for index, pick in enumerate(job.picks):
        prompt = job.prompts[pick]
        result = RequestResult(
            index=index,
            server_index=0,
            prompt_tokens_asked=prompt.asked_tokens,
            output_tokens_asked=prompt.output_tokens,
        )
        results.append(result)
        row = by_index.get(index)
        if row is None:
            continue
        seen_ns = row["times_ns"] if job.stream else [row["end_ns"]] * bool(row.get("output_tokens"))
        counts = row["tokens"] if job.stream else [row["output_tokens"]] * len(seen_ns)
        _fill(result, row, start_ns, seen_ns, sum(counts))
        requests += [index] * len(seen_ns)
        times_ns += seen_ns
        tokens += counts
        at_once += int((np.diff(seen_ns) < AT_ONCE_S * 1e9).sum()) if len(seen_ns) > 1 else 0
    return LoadResult(
        results=results,
        events=TokenEvents(
            request=np.asarray(requests, dtype=np.int32),
            time_s=(np.asarray(times_ns, dtype=np.int64) - start_ns) / 1e9,
            tokens=np.asarray(tokens, dtype=np.int32),
        ),
        warmup=[],
        start_unix_s=float(head.get("start_unix_s", 0.0)),
        start_monotonic_s=start_ns / 1e9,
        duration_s=duration_s,
        token_source="token_ids" if tokens else "none",
        health=ClientHealth(
            loop_lag_p99_ms=float(end.get("loop_lag_p99_ms", 0.0)),
            loop_lag_max_ms=float(end.get("loop_lag_max_ms", 0.0)),
            cpu_fraction=float(end.get("cpu_s", 0.0)) / duration_s if duration_s > 0 else 0.0,
            send_slip_p99_ms=None,
            send_slip_max_ms=None,
            reads=0,
            chunks=sum(int(row.get("chunks", 0)) for row in rows),
            tokens=sum(tokens),
            coalesced_fraction=at_once / len(tokens) if tokens else 0.0,
            loop="gevent",
        ),
        ended_early=end.get("ended_early"),
    )


def _fill(result: RequestResult, row: Row, start_ns: int, seen_ns: Sequence[int], tokens: int) -> None:
    """Write what Locust saw of a request into its result; the first token is the first event with text."""

    def since_start(moment_ns: int | None) -> float | None:
        return None if moment_ns is None else (moment_ns - start_ns) / 1e9

    result.sent_s = since_start(row["sent_ns"])
    result.end_s = since_start(row["end_ns"])
    result.first_token_s = since_start(row.get("first_text_ns"))
    result.last_token_s = since_start(seen_ns[-1] if seen_ns else None)
    result.prompt_tokens_server = row.get("prompt_tokens")
    result.output_tokens_server = row.get("output_tokens")
    result.output_tokens_seen = tokens
    result.chunks = int(row.get("chunks", 0))
    result.http_status = row.get("http_status")
    result.finish_reason = row.get("finish_reason")
    result.status, result.error = row["status"], row["error"]
