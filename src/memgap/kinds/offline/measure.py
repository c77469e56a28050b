"""How an offline point is measured: one worker process with one engine, perhaps under a profiler."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.datasets.build import Prompt
from memgap.datasets.files import load_dataset
from memgap.engine.adapters import adapter_for
from memgap.engine.flags import flag_list, model_flags
from memgap.engine.held import held_of
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import ATTENTION, graphs_in_log, weights_in_log
from memgap.errors import UserError
from memgap.host.gpus import server_gpus
from memgap.host.protocol import Entry, HostPlan
from memgap.host.worker import Job, Worker
from memgap.kinds.offline.gpu_counters import GpmSampler, Row
from memgap.kinds.offline.kind import OFFLINE
from memgap.kinds.offline.profilers import Profiler, profiler_of
from memgap.kinds.offline.steps import COLUMNS
from memgap.kinds.offline.summary import summarize_steps
from memgap.session.measuring import Measuring, PointRun
from memgap.session.phases import Collect
from memgap.session.time_left import Work
from memgap.store.document import PointDocument
from memgap.store.points import csv_gz
from memgap.telemetry.window import by_gpu
from memgap.verdict.batches import judge_batch, machine_summary
from memgap.verdict.evidence import Evidence

RUN_TIMEOUT_S = 900.0
"""A worker that finishes no point for so long hangs."""
GPU_COLUMNS = ("phase", "time_ms", "metric", "value_fraction", "profiler")
RUN_KEYS = ("batch", "detokenize", "temperature", "warmup_steps", "seed")


class Engine(Worker):
    """The worker of offline points, with the device counters that are sampled beside it."""

    wrapper: Profiler

    def __init__(self, plan: HostPlan) -> None:
        self.counters = GpmSampler(plan.scratch / "gpm.csv", server_gpus(plan.record).ids)
        server, model = plan.record["server"], plan.record["model"]
        flags = [*model_flags(model, plan.model_target), *flag_list(server["args"])]

        def facts(engine: dict[str, Any], log: str, began_s: float) -> dict[str, Any]:
            return engine_facts(engine, log, plan.record)

        job = Job(
            "memgap.kinds.offline.worker",
            "engine",
            "{key}/run.json",
            RUN_TIMEOUT_S,
            lambda entries: {
                "flags": flags,
                "profiler": server["profiler"],
                "runs": [_run(one, plan.datasets) for one in entries],
            },
            facts,
            {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            lambda entries: profiler_of(server["profiler"], entries),
            [self.counters],
        )
        super().__init__(plan, job)


def _run(entry: Entry, datasets: Path) -> dict[str, Any]:
    record = entry["record"]
    known = {name: record[name] for name in RUN_KEYS}
    prompts = [list(map(int, one.token_ids)) for one in _prompts(record, datasets)]
    return {
        "key": entry["key"],
        "window": record.get("window"),
        "outputs": record.get("outputs", "final"),
        "lengths": _lengths(record, datasets),
        **({"prompts": prompts} if prompts else {}),
        **known,
    }


def _prompts(record: Mapping[str, Any], datasets: Path) -> list[Prompt]:
    """Return the prompts of a batch that come from a dataset, none where they are made up by the worker."""
    if "dataset" not in record:
        return []
    return load_dataset(datasets / f"{record['dataset']['key']}.npz").prompts[: record["batch"]]


def _lengths(record: Mapping[str, Any], datasets: Path) -> list[list[int]]:
    """Return prompt and output tokens of each request of a batch."""
    if "dataset" not in record:
        return [[record["prompt_tokens"], record["output_tokens"]]] * record["batch"]
    return [[len(one.token_ids), int(one.output_tokens)] for one in _prompts(record, datasets)]


def engine_facts(engine: Mapping[str, Any], log: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the engine of a server record says of itself, its log's words included."""
    facts, model = dict(engine), held_of(record)
    sizes = Sizes.of(adapter_for(record["engine"]["adapter"]).flags, record["server"]["args"])
    loaded = weights_in_log(log, sizes)
    facts["weights_bytes"] = loaded or sizes.copies * model.weights_bytes
    facts["weights_bytes_source"] = "log" if loaded else "architecture"
    facts["graph_memory_bytes"] = graphs_in_log(log, sizes)
    facts["attention_backend"] = logged[1] if (logged := ATTENTION.search(log)) else None
    if facts.get("kv_pool_tokens"):
        facts["kv_pool_bytes"] = model.pool_bytes(facts["kv_pool_tokens"], sizes.tensor)
    return facts


def read(run: PointRun[Engine], outcome: Mapping[str, Any]) -> None:
    """Put what the worker wrote of a batch into its point: steps, device counters, what a profiler saw."""
    host, folder = run.host, run.host.out / run.key
    with (folder / "steps.csv").open(encoding="utf-8", newline="") as file:
        steps = list(csv.DictReader(file))
    profiled = bool(run.record["server"]["profiler"])
    device: dict[str, list[Row]] = {}
    machine: dict[str, float] = {}
    if "end_monotonic_s" in outcome:
        names = ("start_monotonic_s", "prefill_end_monotonic_s", "end_monotonic_s")
        begin_s, middle_s, end_s = (float(outcome[name]) for name in names)
        machine = machine_summary(host.rows(begin_s), end_s - begin_s, profiled)
        if own := by_gpu(host.rows(begin_s), end_s - begin_s):
            run.added["gpus"] = own
        if not profiled:  # profiled steps are not what the counters are about
            rows = host.counters.rows
            device = {"prefill": rows(begin_s, middle_s), "decode": rows(middle_s, end_s)}
    lengths = _lengths(run.record, run.place.datasets)
    run.summary |= {**summarize_steps(steps, device, lengths), **machine}
    if run.error is None and not profiled and run.summary["total_s"]:
        run.summary["output_throughput_tok_s"] = sum(output for _, output in lengths) / run.summary["total_s"]
    run.files["steps.csv.gz"] = csv_gz(steps, list(COLUMNS))
    if gpu := _gpu_rows(device, outcome):
        run.files["gpu.csv.gz"] = csv_gz(gpu, list(GPU_COLUMNS))
    traces, said = host.wrapper.kept(folder)
    run.files |= traces
    if said:
        run.added["profile"] = said
    if run.error is not None:
        return
    try:
        files, further = host.wrapper.files(run.key, folder, host.scratch)
    except (UserError, ValueError, OSError) as error:
        run.fail("profiler_failed", str(error), "")
        return
    run.files |= files
    run.summary |= further
    run.evidence.append(("", Evidence(run.record, dict(run.summary), {}, run.place.hardware)))


def _gpu_rows(rows: Mapping[str, Sequence[Row]], outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the device counters as a long table, times from the phase's begin."""
    names = {"prefill": "start_monotonic_s", "decode": "prefill_end_monotonic_s"}
    begins = {phase: float(outcome.get(name) or 0.0) for phase, name in names.items()}
    return [
        {
            "phase": phase,
            "time_ms": round((row["time_monotonic_s"] - begins[phase]) * 1e3, 3),
            "metric": name.removesuffix("_fraction"),
            "value_fraction": round(value, 4),
            "profiler": "gpm",
        }
        for phase, found in rows.items()
        for row in found
        for name, value in row.items()
        if name.endswith("_fraction")
    ]


def result(point: PointDocument) -> str:
    """Return the mean of its decode steps, where it has any."""
    step_ms = point["summary"].get("decode_step_mean_ms")
    return "done" if step_ms is None else f"{step_ms:.2f} ms a decode step"


def work(record: Mapping[str, Any]) -> Work:
    """Return the decode steps; nothing for a profiler whose results all come in the end."""
    profiler = record["server"]["profiler"]
    return Work(0.0) if profiler is not None and profiler["source"] != "torch" else OFFLINE.work(record)


MEASURING: Measuring[Engine] = Measuring(Engine, (Collect(read),), OFFLINE.label, result, work, judge_batch)
