"""One of several client processes of a load; `memgap.load.workers` starts it and merges what it writes.

`python -m memgap.load.worker JOB` reads JOB/job.json and JOB/prompts.npz, warms up, prints "ready", reads the window's
start (a monotonic time in ns, which all processes of a machine share) from standard input, runs, and writes
JOB/result.json and JOB/events.npz. It prints how many requests are done; it stops early when its input closes. The
API key comes by environment.
"""

import asyncio
import dataclasses
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from memgap.load.loop import loop_factory
from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run_load

API_KEY = "MEMGAP_LOAD_API_KEY"


def write_job(folder: Path, job: dict[str, Any], prompts: list[Prompt], warmup: list[Prompt]) -> None:
    """Write a worker's job: `job` holds plan, urls and offsets_s (or null)."""
    folder.mkdir(parents=True)
    told = [[[one.text, one.conversation, one.group, one.prompt_tokens] for one in part] for part in (prompts, warmup)]
    (folder / "job.json").write_text(json.dumps({**job, "prompts": told}), encoding="utf-8")
    every = [*prompts, *warmup]
    ids = [np.asarray(one.token_ids or (), dtype=np.int32) for one in every]
    np.savez(
        folder / "prompts.npz",
        ids=np.concatenate(ids),
        lengths=np.asarray([len(one) for one in ids], dtype=np.int64),
        output_tokens=np.asarray([one.output_tokens for one in every], dtype=np.int32),
    )


def _read_job(folder: Path) -> tuple[dict[str, Any], list[Prompt], list[Prompt]]:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "prompts.npz", allow_pickle=False) as stored:
        ids, lengths, outputs = stored["ids"], stored["lengths"], stored["output_tokens"]
    ends = np.cumsum(lengths)
    told = [*job["prompts"][0], *job["prompts"][1]]
    every = [
        Prompt(int(output), ids[end - length : end].tolist() if text is None else None, text, *others)
        for end, length, output, (text, *others) in zip(ends, lengths, outputs, told, strict=True)
    ]
    measured = len(job["prompts"][0])
    return job, every[:measured], every[measured:]


def _write_result(folder: Path, result: LoadResult) -> None:
    whole = {
        "results": [dataclasses.asdict(one) for one in result.results],
        "warmup": [dataclasses.asdict(one) for one in result.warmup],
        "health": dataclasses.asdict(result.health),
        "start_unix_s": result.start_unix_s,
        "start_monotonic_s": result.start_monotonic_s,
        "duration_s": result.duration_s,
        "token_source": result.token_source,
        "ended_early": result.ended_early,
        "stopped_by": result.stopped_by,
    }
    (folder / "result.json").write_text(json.dumps(whole), encoding="utf-8")
    np.savez(folder / "events.npz", **result.events.columns())  # type: ignore[arg-type]


async def _work(job: dict[str, Any], prompts: list[Prompt], warmup: list[Prompt]) -> LoadResult:
    loop, abort = asyncio.get_running_loop(), asyncio.Event()

    def wait_for_the_end_of_input() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        loop.call_soon_threadsafe(abort.set)

    def ready() -> int:
        print("ready", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(1)
        threading.Thread(target=wait_for_the_end_of_input, daemon=True).start()
        return int(line)

    plan = LoadPlan(**job["plan"], api_key=os.environ.get(API_KEY))
    offsets_s = None if job["offsets_s"] is None else np.asarray(job["offsets_s"], dtype=np.float64)
    shown = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if done == total or loop.time() - shown > 0.2:
            shown = loop.time()
            print(done, flush=True)

    return await run_load(plan, prompts, job["urls"], progress, abort, warmup, ready, offsets_s)


def main(folder: Path) -> int:
    """Run the job in `folder`."""
    job, prompts, warmup = _read_job(folder)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        _write_result(folder, runner.run(_work(job, prompts, warmup)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
