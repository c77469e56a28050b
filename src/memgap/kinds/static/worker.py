"""Runs static batches: `python -m memgap.kinds.static.worker --spec FILE --out FOLDER`.

Runs in the engine's interpreter, so it needs nothing but the standard library, torch and transformers. Writes
FOLDER/engine.json when the model is loaded, then FOLDER/KEY.json for each point by one rename, and FOLDER/memory.csv,
torch's allocator over the worker's whole life.
"""

import argparse
import csv
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.kinds.static.limits import TooLongError

MEMORY_COLUMNS = ("time_monotonic_s", "allocated_bytes", "reserved_bytes")
OUT_OF_MEMORY = 3
"""Exit status after a point that ran out of memory: what is left needs a fresh worker."""


class AllocatorSampler:
    """A thread that writes what torch's allocator holds every `interval_s`; on a CPU it has nothing to write."""

    def __init__(self, out: Path, interval_s: float) -> None:
        self._out = out
        self._interval_s = interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "AllocatorSampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        import torch

        with self._out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(MEMORY_COLUMNS)
            while torch.cuda.is_available() and not self._done.wait(self._interval_s):
                if torch.cuda.is_initialized():
                    held = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
                    writer.writerow((f"{time.monotonic():.6f}", *held))
                    file.flush()


def main(argv: list[str] | None = None) -> int:
    """Measure every point of the specification; returns `OUT_OF_MEMORY` where one ran out of it."""
    parser = argparse.ArgumentParser(description="Run static batches in one process.")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    spec = json.loads(options.spec.read_text(encoding="utf-8"))
    with AllocatorSampler(options.out / "memory.csv", float(spec["interval_s"])):
        from memgap.kinds.static.generate import HfModel

        began_s = time.monotonic()
        model = HfModel(spec["model"], spec["options"])
        start_s = time.monotonic() - began_s
        write_json(
            options.out / "engine.json", {**model.facts(), "load_s": start_s, "loaded_monotonic_s": began_s + start_s}
        )
        for run in spec["runs"]:
            outcome = measure(model, run)
            write_json(options.out / f"{run['key']}.json", outcome)
            if outcome["status"] == "oom":
                return OUT_OF_MEMORY
    return 0


def measure(model: Any, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came of a point: its status and message, and every batch with its steps.

    `run` has `key`, `batches` and `warmup`: lists of batches, each a list of [token ids, output tokens].
    """
    outcome: dict[str, Any] = {"status": "ok", "message": None, "batches": []}
    try:
        for batch in run["warmup"]:
            model.batch(*_asked(batch))
        gc.collect()
        model.free()
        outcome |= {"start_unix_s": time.time(), "start_monotonic_s": time.monotonic()}
        for batch in run["batches"]:
            outcome["batches"].append(model.batch(*_asked(batch)))
        outcome["end_monotonic_s"] = time.monotonic()
    except TooLongError as error:
        outcome |= {"status": "bad_config", "message": str(error)}
    except (RuntimeError, MemoryError) as error:  # torch's own is a RuntimeError
        text = str(error) or type(error).__name__
        if not isinstance(error, MemoryError) and not _says_oom(text):
            raise
        outcome |= {"status": "oom", "message": text.splitlines()[0]}
    outcome.setdefault("end_monotonic_s", time.monotonic())
    outcome.setdefault("start_monotonic_s", outcome["end_monotonic_s"])
    outcome.setdefault("start_unix_s", time.time())
    return outcome


def _says_oom(text: str) -> bool:
    return any(words in text.lower() for words in ("out of memory", "can't allocate memory", "std::bad_alloc"))


def _asked(batch: Sequence[Sequence[Any]]) -> tuple[list[list[int]], int]:
    """Return a batch's prompts and the output of its longest request, which all wait for."""
    return [one[0] for one in batch], max(int(one[1]) for one in batch)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
