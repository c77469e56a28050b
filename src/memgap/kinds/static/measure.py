"""How a point of static batches is measured: one worker process that loads the model once."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.datasets.build import Prompt, warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.host.protocol import Entry, HostPlan
from memgap.host.worker import Job, Worker
from memgap.kinds.static.kind import STATIC
from memgap.kinds.static.result import BATCH_COLUMNS, STEP_COLUMNS, batch_rows, load_result, step_rows, worked
from memgap.load.latency import summarize
from memgap.session.measuring import Measuring, PointRun, Record
from memgap.session.phases import Collect, result_files, window_of
from memgap.store.document import PointDocument
from memgap.store.points import csv_gz
from memgap.telemetry import startup, window
from memgap.telemetry.sampler import columns_of
from memgap.verdict.evidence import Evidence

RUN_TIMEOUT_S = 1800.0
"""A worker that finishes no point for so long hangs."""


def worker(plan: HostPlan) -> Worker:
    """Return the session's worker."""
    record, model = plan.record, plan.record["model"]
    settings = {
        "interval_s": plan.interval_s,
        "model": {
            "target": plan.model_target,
            "dtype": model["dtype"],
            "dummy": model["weights"] == "synthetic",
            "revision": model.get("revision") if model["weights"] == "hub" else None,
            "trust_remote_code": model.get("trust_remote_code") is True,
        },
        "options": record["server"]["args"],
    }
    job = Job(
        "memgap.kinds.static.worker",
        "worker",
        "{key}.json",
        RUN_TIMEOUT_S,
        lambda entries: {**settings, "runs": [_run(one, plan.datasets) for one in entries]},
        engine_facts,
        {"HF_HUB_DISABLE_TELEMETRY": "1"},
    )
    return Worker(plan, job)


def engine_facts(engine: dict[str, Any], log: str, began_s: float) -> dict[str, Any]:
    """Return what the worker says of itself, and how long it took until the model was ready."""
    loaded_s = float(engine.pop("loaded_monotonic_s"))
    return {**engine, "start_s": loaded_s - began_s}


def _run(entry: Entry, datasets: Path) -> dict[str, Any]:
    measured, warmup = prompts(entry["record"], datasets)
    size = entry["record"]["batch_cap"]
    return {"key": entry["key"], "batches": _batches(measured, size), "warmup": _batches(warmup, size)}


def prompts(record: Record, datasets: Path) -> tuple[list[Prompt], list[Prompt]]:
    """Return the measured prompts of a point and those of its warm-up."""
    load, stored = record["load"], load_dataset(datasets / f"{record['dataset']['key']}.npz")
    measured = stored.prompts[: load["requests"]]
    return measured, warmup_prompts(stored.spec, n=load["warmup_requests"], like=measured)


def _batches(asked: Sequence[Prompt], size: int) -> list[list[list[Any]]]:
    """Return the prompts in their order, `size` at a time, each as [token ids, output tokens]."""
    pairs = [[list(map(int, one.token_ids)), int(one.output_tokens)] for one in asked]
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def read(run: PointRun[Worker], outcome: Mapping[str, Any]) -> None:
    """Put what the worker wrote of a point into it, in the form that served points have."""
    size, (measured, _) = run.record["batch_cap"], prompts(run.record, run.place.datasets)
    found = load_result(outcome, measured, size)
    rows = run.host.rows(found.start_monotonic_s)
    if run.error is None:
        run.summary |= {**summarize(found), **worked(outcome, measured, size)}
        run.summary |= window.summarise(rows, found.duration_s, int(run.summary["output_tokens"]))
        del run.summary["engine_telemetry_gap_s"]  # there are no metrics of a server that could fall silent
        health = dataclasses.asdict(found.health)
        run.evidence.append(("", Evidence(run.record, dict(run.summary), health, run.place.hardware)))
        run.files |= result_files(found)
    run.added["window"] = window_of(found)
    if own := window.by_gpu(rows, found.duration_s):
        run.added["gpus"] = own
    inside = [row for row in rows if -1.0 <= row["time_s"] <= found.duration_s + 1.0]
    run.files |= {
        "telemetry.csv.gz": csv_gz(inside, columns_of(inside)),
        "startup.csv.gz": csv_gz(_startup_rows(run.host), list(startup.COLUMNS)),
        "steps.csv.gz": csv_gz(step_rows(outcome), list(STEP_COLUMNS)),
        "batches.csv.gz": csv_gz(batch_rows(outcome, measured, size), list(BATCH_COLUMNS)),
    }


def _startup_rows(host: Worker) -> list[dict[str, float]]:
    """Return the memory until the model was ready, with what torch's allocator held."""
    try:
        with (host.out / "memory.csv").open(encoding="utf-8", newline="") as file:
            held = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        held = []
    rows = host.startup_rows
    for row in rows:
        before = [one for one in held if one["time_monotonic_s"] - host.began_s <= row["time_s"]]
        if before:
            row.update({name: value for name, value in before[-1].items() if name != "time_monotonic_s"})
    return rows


def result(point: PointDocument) -> str:
    """Return the useful tokens a second, their share of those that were made, and the duration."""
    summary = point["summary"]
    useful = summary["output_tokens"] / summary["computed_output_tokens"]
    return (
        f"{summary['output_throughput_tok_s']:.0f} useful output tok/s ({useful:.0%} of the tokens it made) "
        f"in {summary['duration_s']:.1f} s"
    )


MEASURING: Measuring[Worker] = Measuring(worker, (Collect(read),), STATIC.label, result, STATIC.work)
