"""How a point of a load test is measured: either client against the same server, one after the other."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from memgap.datasets.build import warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.errors import UserError
from memgap.host.protocol import Server
from memgap.kinds.locust.environment import LOCUST_VERSION, locust_python
from memgap.kinds.locust.kind import LOADTEST
from memgap.kinds.locust.locust_run import LocustJob, LocustRun, run_locust
from memgap.kinds.locust.point import LOCUST, picks
from memgap.kinds.online import measure as online
from memgap.load.records import Prompt
from memgap.session.measuring import Measuring, PointRun
from memgap.session.phases import (
    Asked,
    Load,
    ResetCaches,
    ServerRun,
    Window,
    as_sent,
    load_plan,
    own_client,
    send_warmup,
)
from memgap.store.points import csv_gz

ROW_COLUMNS = ("index", "status", "sent_s", "headers_s", "first_event_s", "first_text_s", "end_s", "default_ms")
RUN = "locust"
"""Under that name a point keeps what came of Locust."""


def users_load(run: ServerRun) -> Load:
    """Return the prompts in the order in which they are asked, the same for either client."""
    pool, warmup = _pool(run)
    return Load(load_plan(run), [pool[pick] for pick in picks(run.record)], warmup)


def _pool(run: ServerRun) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts that users take from, and those of the warm-up."""
    record, test = run.record, run.record["loadtest"]
    stored = load_dataset(run.place.datasets / f"{record['dataset']['key']}.npz")
    pool = [dataclasses.replace(one, output_tokens=test["output_tokens"]) for one in stored.prompts[: test["prompts"]]]
    warmup = warmup_prompts(stored.spec, n=record["load"]["warmup_requests"], like=pool)
    return as_sent(pool, record, run.host), as_sent(warmup, record, run.host)


async def either_client(run: ServerRun, load: Load, before_window: Callable[[], None], abort: asyncio.Event) -> Asked:
    """Send the load with the point's client."""
    client = _locust if run.record["loadtest"]["client"] == LOCUST else own_client
    asked = await client(run, load, before_window, abort)
    if asked.death is None and not any(one.sent_s is not None for one in asked.result.results):
        return dataclasses.replace(asked, death=("no request was sent", run.host.log_tail()))
    return asked


async def _locust(run: ServerRun, load: Load, before_window: Callable[[], None], abort: asyncio.Event) -> Asked:
    await send_warmup(run, load, abort)
    before_window()
    test, (pool, _) = run.record["loadtest"], _pool(run)
    job = LocustJob(load.plan, pool, picks(run.record), test["users"], test["spawn_rate_users_s"], test["stream"])
    folder = run.place.scratch / f"{run.key}.locust"
    found = await run_locust(job, locust_python(), run.host.urls[0], folder, run.on_progress, abort)
    if found.version not in (LOCUST_VERSION, None):
        raise UserError(f"the points are of Locust {LOCUST_VERSION}, but {found.version} ran; install that one.")
    run.kept[RUN] = found
    return Asked(found.result, (found.death, "\n".join(found.log.splitlines()[-40:])) if found.death else None)


def complete(run: PointRun[Server]) -> None:
    """Add which server it was, and of a Locust point its command, its CSV files and what it saw of each request."""
    if "window" not in run.added:
        return
    run.added["server_start"] = "+".join(map(str, run.host.pids))
    if RUN not in run.kept:
        return
    if not run.record["loadtest"]["stream"]:
        run.summary.pop("tokens_per_chunk_mean", None)
    found: LocustRun = run.kept[RUN]
    run.added["locust"] = {
        "version": found.version,
        "command": found.command,
        "death": found.death,
        "left_out": found.left_out,
    }
    start_s = found.result.start_monotonic_s
    rows = csv_gz([_times(row, start_s) for row in found.rows], ROW_COLUMNS)
    run.files |= {**found.files, "locust.log": found.log.encode(), "locust_rows.csv.gz": rows}


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


def require() -> None:
    """Raises UserError without Locust."""
    locust_python()


MEASURING: Measuring[Server] = dataclasses.replace(
    online.MEASURING,
    phases=(ResetCaches(), Window(load=users_load, client=either_client)),
    label=LOADTEST.label,
    work=LOADTEST.work,
    require=require,
    complete=complete,
)
