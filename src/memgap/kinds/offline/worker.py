"""Measures offline points in this process: `python -m memgap.kinds.offline.worker --spec FILE --out FOLDER`.

Runs in the engine's interpreter, so it needs nothing but the standard library, vLLM and torch. Writes
FOLDER/engine.json when the engine is there, then FOLDER/KEY/ for each point by one rename: run.json, steps.csv, traces.
"""

import argparse
import csv
import gc
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.kinds.offline.inprocess import InProcessEngine
from memgap.kinds.offline.phases import DECODE, PREFILL, KvExhaustedError
from memgap.kinds.offline.ranges import PHASE_NAMES, NoRanges, ranges_for
from memgap.kinds.offline.steps import COLUMNS, Step, row

NO_WINDOW = {"prefill_steps": 0, "decode_from": 0, "decode_steps": 0}

Run = Mapping[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Measure every point of the specification; returns 1 where the engine ran out of memory, which ends it."""
    parser = argparse.ArgumentParser(description="Measure offline points in one process.")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    spec = json.loads(options.spec.read_text(encoding="utf-8"))
    profiler = spec["profiler"]
    began_s = time.monotonic()
    with ranges_for(profiler, NO_WINDOW).phase("Initialization"):
        engine = InProcessEngine([str(one) for one in spec["flags"]])
    _write_json(options.out / "engine.json", {**engine.facts(), "start_s": time.monotonic() - began_s})
    for run in spec["runs"]:
        folder = options.out / f".{run['key']}"
        folder.mkdir(parents=True, exist_ok=True)
        status = _measure(engine, run, ranges_for(profiler, run["window"], run["key"]), folder)
        folder.rename(options.out / run["key"])
        if status == "oom":
            return 1
    return 0


def _measure(engine: InProcessEngine, run: Run, ranges: NoRanges, folder: Path) -> str:
    """Measure one point and write what came of it; returns its status."""
    outcome: dict[str, Any] = {"status": "ok", "message": None}
    try:
        _warm_up(engine, run)
        gc.collect()
        outcome |= _batch(engine, run, ranges)
    except KvExhaustedError as error:
        outcome |= {"status": "kv_exhausted", "message": str(error)}
    except Exception as error:
        if "out of memory" not in str(error).lower():
            raise
        outcome |= {"status": "oom", "message": str(error).splitlines()[0]}
    steps = engine.recorder.finished
    if outcome["status"] != "oom":
        engine.drop()
    outcome["files"] = ranges.finish(folder)
    with (folder / "steps.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row(step) for step in steps)
    _write_json(folder / "run.json", outcome)
    return str(outcome["status"])


def _batch(engine: InProcessEngine, run: Run, ranges: NoRanges) -> dict[str, Any]:
    """Run the batch, prefill first; with a profiler only as far as its last wanted step."""
    _queue(engine, run, "measured", run["seed"], None)
    window = run["window"]
    last = window["decode_from"] + window["decode_steps"] - 1 if window else None
    recorder, ended = engine.recorder, False
    began_unix_s, began_s = time.time(), time.monotonic()
    recorder.begin()
    with ranges.phase(f"Point:{run['key']}"):
        with ranges.phase(PHASE_NAMES[PREFILL]):
            while engine.unfinished and _prompts_left(engine):
                _step(engine, ranges, PREFILL)
        prefill_ended_s = time.monotonic()
        with ranges.phase(PHASE_NAMES[DECODE]):
            while engine.unfinished and not ended:
                _step(engine, ranges, DECODE)
                ended = last is not None and _steps_of(recorder.finished, DECODE) > last
    return {
        "start_unix_s": began_unix_s,
        "start_monotonic_s": began_s,
        "prefill_end_monotonic_s": prefill_ended_s,
        "end_monotonic_s": time.monotonic(),
    }


def _step(engine: InProcessEngine, ranges: NoRanges, phase: str) -> None:
    if ranges.free:
        engine.step()
    else:
        with ranges.step(phase, _steps_of(engine.recorder.finished, phase)):
            engine.step()
    engine.recorder.returned()


def _steps_of(steps: list[Step], phase: str) -> int:
    return sum(one.phase == phase for one in reversed(steps))


def _prompts_left(engine: InProcessEngine) -> bool:
    scheduler = engine.core.scheduler
    return bool(len(scheduler.waiting)) or any(
        one.num_computed_tokens < one.num_prompt_tokens for one in scheduler.running
    )


def _warm_up(engine: InProcessEngine, run: Run) -> None:
    """Run the same batch for a few steps with other prompts, so that nothing is compiled or allocated later."""
    if not run["warmup_steps"]:
        return
    _queue(engine, run, "warmup", run["seed"] + 1, 1 + run["warmup_steps"])
    while engine.unfinished:
        engine.step()
        engine.recorder.returned()


def _queue(engine: InProcessEngine, run: Run, name: str, seed: int, output_tokens: int | None) -> None:
    """Queue the batch: its own prompts and lengths, or with `output_tokens` others of the same prompt lengths."""
    draw = random.Random(seed)
    vocabulary = engine.facts()["vocabulary_size"]
    prompts = run.get("prompts") if output_tokens is None else None
    for number, (length, output) in enumerate(run["lengths"]):
        prompt = prompts[number] if prompts else [draw.randrange(10, vocabulary) for _ in range(length)]
        engine.add(f"{name}-{run['key']}-{number}", prompt, output_tokens or output, run)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
