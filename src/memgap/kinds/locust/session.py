"""Measures the points of a load test in a session: either client against the same server, one after the other."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.datasets.build import warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.errors import UserError
from memgap.kinds.locust.environment import LOCUST_VERSION, locust_python
from memgap.kinds.locust.locust_run import LocustJob, LocustRun, run_locust
from memgap.kinds.locust.point import LOCUST, picks
from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run_load
from memgap.session.measure import Measurement, Point, as_sent
from memgap.session.run import Session
from memgap.store.points import csv_gz

CLIENT_FAILED = "client_failed"
"""Status of a point whose Locust ended before its last request, without the server being to blame."""
ROW_COLUMNS = ("index", "status", "sent_s", "headers_s", "first_event_s", "first_text_s", "end_s", "default_ms")


class LoadTestMeasurement(Measurement):
    """What measures points of a load test; a point that is not Locust's is measured as in any session."""

    _run: LocustRun | None = None

    def measure(
        self, key: str, record: Mapping[str, Any], watch: Any, on_progress: Callable[[int, int], None]
    ) -> Point:
        """See Measurement.measure."""
        self._run = None
        return super().measure(key, record, watch, on_progress)

    def _requests(self, record: Mapping[str, Any]) -> tuple[list[Prompt], list[Prompt], NDArray[np.float64] | None]:
        """Return the prompts in the order in which they are asked, the same for either client."""
        pool, warmup = self._pool(record)
        return [pool[pick] for pick in picks(record)], warmup, None

    def _pool(self, record: Mapping[str, Any]) -> tuple[list[Prompt], list[Prompt]]:
        """Return the prompts that users take from, and those of the warm-up."""
        test = record["loadtest"]
        stored = load_dataset(self._datasets / f"{record['dataset']['key']}.npz")
        pool = [
            dataclasses.replace(one, output_tokens=test["output_tokens"]) for one in stored.prompts[: test["prompts"]]
        ]
        warmup = warmup_prompts(stored.spec, n=record["load"]["warmup_requests"], like=pool)
        return as_sent(pool, record, self._server), as_sent(warmup, record, self._server)

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
        test = record["loadtest"]
        if test["client"] != LOCUST:
            return await super()._send(key, record, plan, prompts, warmup, due_s, on_progress, abort, before_window)
        if warmup:
            warming = dataclasses.replace(plan, requests=len(warmup), warmup_requests=0, think_time_s=0.0)
            await run_load(warming, warmup, self._server.urls, abort=abort)
        before_window()
        pool, _ = self._pool(record)
        job = LocustJob(plan, pool, picks(record), test["users"], test["spawn_rate_users_s"], test["stream"])
        folder = self._scratch / f"{key}.locust"
        self._run = await run_locust(job, locust_python(), self._server.urls[0], folder, on_progress, abort)
        if self._run.version not in (LOCUST_VERSION, None):
            raise UserError(
                f"the points are of Locust {LOCUST_VERSION}, but {self._run.version} ran; install that one."
            )
        return self._run.result

    def _outcome(
        self, summary: Mapping[str, float], result: LoadResult, hangs: bool
    ) -> tuple[str, dict[str, str] | None]:
        run = self._run
        if run is not None and run.death and self._server.alive and not hangs:
            return CLIENT_FAILED, {"kind": CLIENT_FAILED, "message": run.death, "log_tail": _tail(run.log)}
        if summary["requests_sent"] == 0:
            message = "no request was sent"
            return CLIENT_FAILED, {"kind": CLIENT_FAILED, "message": message, "log_tail": self._server.log_tail()}
        return super()._outcome(summary, result, hangs)

    def _complete(self, point: Point, files: dict[str, bytes]) -> None:
        """Add which server it was, and of a Locust point its command, its CSV files and what it saw of each request."""
        point["server_start"] = "+".join(map(str, self._server.pids))
        run = self._run
        if run is None:
            return
        if not point["record"]["loadtest"]["stream"]:
            point["summary"].pop("tokens_per_chunk_mean", None)
        point["locust"] = {"version": run.version, "command": run.command, "death": run.death}
        files.update(run.files)
        files["locust.log"] = run.log.encode()
        start_s = run.result.start_monotonic_s
        files["locust_rows.csv.gz"] = csv_gz([_times(row, start_s) for row in run.rows], ROW_COLUMNS)


class LoadTestSession(Session):
    """The load test points of one plan."""

    measurement = LoadTestMeasurement

    def _measure(self, todo: Sequence[Mapping[str, Any]]) -> None:
        locust_python()  # before a server is started for nothing
        super()._measure(todo)


def _times(row: Mapping[str, Any], start_s: float) -> dict[str, Any]:
    """Return the moments of a request in seconds since the window's start, and what Locust calls its response time
    where nobody corrects it."""
    moments = {**row, "first_event_ns": row["times_ns"][0] if row["times_ns"] else None}
    times = {
        f"{name}_s": moments[f"{name}_ns"] / 1e9 - start_s
        for name in ("sent", "headers", "first_event", "first_text", "end")
        if moments.get(f"{name}_ns") is not None
    }
    return {"index": row["index"], "status": row["status"], "default_ms": row.get("default_ms"), **times}


def _tail(log: str, lines: int = 40) -> str:
    return "\n".join(log.splitlines()[-lines:])
