"""Measures a session's offline points: one worker process with one engine, under a profiler if they ask for one."""

import csv
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import memgap
from memgap.canonical import canonical_json
from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.failure import ServerFailureError
from memgap.engine.flags import flag_list, model_flags
from memgap.engine.given import GivenFlags
from memgap.engine.identity import engine_python
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import ATTENTION, weights_in_log
from memgap.errors import UserError
from memgap.host.gpus import gpu_variables, server_gpus
from memgap.host.supervised import Supervised
from memgap.kinds.offline.gpu_counters import GpmSampler, Row
from memgap.kinds.offline.profilers import Profiler, profiler_of
from memgap.kinds.offline.steps import COLUMNS
from memgap.kinds.offline.summary import summarize_steps
from memgap.models.architecture import ModelArchitecture
from memgap.redact import redact
from memgap.session.provenance import hardware, provenance
from memgap.session.run import START_FAILURES, Session
from memgap.store.points import SCHEMA, csv_gz

RUN_TIMEOUT_S = 900.0
"""A worker that finishes no point for so long hangs."""
POLL_S = 0.2
GPU_COLUMNS = ("phase", "time_ms", "metric", "value_fraction", "profiler")

Entry = Mapping[str, Any]


class OfflineSession(Session):
    """The offline points of one plan."""

    def _measure(self, todo: Sequence[Entry]) -> None:
        with self._claimed(todo) as wanted:
            self._measure_all(wanted)

    def _measure_all(self, todo: Sequence[Entry]) -> None:
        left = {point["key"]: point for point in todo}
        failures, total = 0, len(todo)
        with self._scratch() as scratch:
            while left:
                if failures >= START_FAILURES:
                    message = f"not tried: the engine failed to start {failures} times in a row"
                    self._give_up(left, ServerFailureError("crash", message, ""))
                    return
                worker = _Worker(self, scratch, list(left.values()))
                began, failure = len(left), None
                try:
                    for point in worker.run():
                        left.pop(point["key"])
                        self._tell_point(point, total - len(left), total)
                except ServerFailureError as problem:
                    failure = problem
                    if failure.kind == "no_profiler":
                        self._give_up(left, failure)
                        return
                if failure is None and left and not worker.out_of_memory:
                    failure = ServerFailureError("crash", "the engine ended without a result", worker.log_tail())
                failures = 0 if len(left) < began or worker.engine_started else failures + 1
                if failure is not None and left:
                    culprit = left.pop(next(iter(left)))
                    self._store_failure(culprit, failure, worker.command)

    def _give_up(self, left: Mapping[str, Entry], failure: ServerFailureError) -> None:
        for point in left.values():
            self._store_failure(point, failure, [])

    @property
    def server_record(self) -> Mapping[str, Any]:
        """The engine and its flags, which all points of the session share."""
        return self._server_record

    @property
    def options(self) -> Mapping[str, Any]:
        """How the session runs, which is no part of a point."""
        options: Mapping[str, Any] = self._plan["options"]
        return options

    def flags(self) -> list[str]:
        """Return the flags of the engine in process."""
        model = self._server_record["model"]
        return [*model_flags(model, self._model_target()), *flag_list(self._server_record["server"]["args"])]

    def network(self) -> dict[str, str]:
        """Return the variables that keep the engine off the network, where its node has none."""
        return self._network()

    def check(self) -> None:
        """Raises StoppedError where the session has to stop."""
        self._watch.check()

    def say(self, text: str) -> None:
        """Tell the user."""
        self._progress.say(text)

    def store(
        self,
        entry: Entry,
        outcome: Mapping[str, Any],
        summary: Mapping[str, float],
        engine: Mapping[str, Any],
        command: list[str],
        files: Mapping[str, bytes],
    ) -> dict[str, Any]:
        """Put a measured point into the store; returns its point.json."""
        record = entry["record"]
        bad = outcome["status"] != "ok"
        error = {
            "kind": outcome["status"],
            "message": outcome["message"],
            "log_tail": outcome.get("log_tail", ""),
        }
        point = {
            "schema": SCHEMA,
            "key": entry["key"],
            "record": dict(record),
            "status": outcome["status"],
            "flags": [],
            "error": error if bad else None,
            "summary": {name: value for name, value in summary.items() if math.isfinite(value)},
            "engine": {**dataclasses.asdict(EngineFacts()), **engine},
            "hardware": hardware(server_gpus(self._server_record), GivenFlags.of(self._server_record).gpus),
            "remeasured_for": list(self.options["remeasure"]),
            "verdict": {"verdict": None if bad else "valid", "limit": None, "reasons": []},
            "provenance": provenance(record["engine"]["package"], engine.get("version"), [command]),
        }
        self._store.write(entry["key"], point, files)
        return point

    def _store_failure(self, entry: Entry, failure: ServerFailureError, command: list[str]) -> None:
        outcome = {"status": failure.kind, "message": str(failure), "log_tail": failure.log_tail}
        files = {"server.log": failure.log_tail.encode()}
        self._tell_point(self.store(entry, outcome, {}, {}, command, files), 0, 0)

    def _tell_point(self, point: Mapping[str, Any], number: int, total: int) -> None:
        record, summary = point["record"], point["summary"]
        label = f"{record['model']['name']}, batch {record['batch']}"
        place = f"point {number} of {total} " if total else ""
        if point["status"] != "ok":
            self._progress.say(f"{place}({label}): {point['status']}: {point['error']['message']}")
        elif "decode_step_mean_ms" in summary:
            self._progress.say(f"{place}({label}): {summary['decode_step_mean_ms']:.2f} ms a decode step")
        else:
            self._progress.say(f"{place}({label}): done")


class _Worker:
    """One worker process and what it leaves in its folder."""

    def __init__(self, session: OfflineSession, scratch: Path, entries: Sequence[Entry]) -> None:
        self._session = session
        self._entries = {entry["key"]: entry for entry in entries}
        self._out = scratch / "out"
        self._log = scratch / "engine.log"
        self._scratch = scratch
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        settings = session.server_record["server"]["profiler"]
        self._profiler: Profiler = profiler_of(settings, entries)
        self.command: list[str] = []
        self.engine_started = False
        self.out_of_memory = False
        """Whether the last point that was stored ended the worker: those after it were not tried."""

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield each point once it is stored. Raises ServerFailureError where the worker dies, hangs or runs out of
        memory, and where the profiler is not there ("no_profiler").
        """
        try:
            self._profiler.require()
        except UserError as error:
            raise ServerFailureError("no_profiler", str(error), "") from error
        spec = self._scratch / "spec.json"
        spec.write_text(canonical_json(self._spec()), encoding="utf-8")
        python = engine_python(self._session.options["python"], self._session.server_record["engine"]["image"])
        worker = [python, "-m", "memgap.kinds.offline.worker", "--spec", str(spec), "--out", str(self._out)]
        self.command = self._profiler.command(worker, self._scratch)
        adapter = adapter_for(self._session.server_record["engine"]["adapter"])
        process = Supervised(self.command, self._log, self._environment())
        try:
            gpus = server_gpus(self._session.server_record).ids
            with GpmSampler(self._scratch / "gpm.csv", gpus) as sampler:
                self._session.say(f"starting the engine for {len(self._entries)} points")
                yield from self._collect(process, sampler)
        finally:
            process.stop()
        if self._profiler.after_the_end:
            yield from self._stored(self._seen(), None)
        if len(self._seen()) < len(self._entries) and not self.out_of_memory:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            kind = adapter.failure_kind(log) or "crash"
            raise ServerFailureError(kind, self._profiler.death(log), self.log_tail())

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the worker's log, secrets redacted: they are kept in points."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return redact("\n".join(text.splitlines()[-lines:]))

    def _collect(self, process: Supervised, sampler: GpmSampler) -> Iterator[dict[str, Any]]:
        began_s = last_s = time.monotonic()
        stored: set[str] = set()
        while True:
            alive = process.alive
            if not self.engine_started and (self._out / "engine.json").exists():
                self.engine_started, last_s = True, time.monotonic()
                self._session.say(f"engine ready after {last_s - began_s:.0f} s")
            new = [key for key in self._seen() if key not in stored]
            if new:
                last_s = time.monotonic()
                stored.update(new)
                if not self._profiler.after_the_end:
                    yield from self._stored(new, sampler)
            if not alive:
                return
            self._check_time(began_s, last_s)
            self._session.check()
            time.sleep(POLL_S)

    def _check_time(self, began_s: float, last_s: float) -> None:
        patience_s = self._profiler.patience
        limit_s = float(self._session.options["startup_timeout_s"]) * patience_s
        if not self.engine_started and time.monotonic() - began_s > limit_s:
            message = f"the engine was not ready after {limit_s:.0f} s (engines.*.startup_timeout_s)"
            raise ServerFailureError("start_timeout", message, self.log_tail())
        if self.engine_started and time.monotonic() - last_s > RUN_TIMEOUT_S * patience_s:
            raise ServerFailureError("timeout", "the engine finished no point for too long", self.log_tail())

    def _seen(self) -> list[str]:
        return [key for key in self._entries if (self._out / key / "run.json").exists()]

    def _stored(self, keys: Sequence[str], sampler: GpmSampler | None) -> Iterator[dict[str, Any]]:
        facts = self._facts()
        for key in keys:
            entry, folder = self._entries[key], self._out / key
            outcome = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            with (folder / "steps.csv").open(encoding="utf-8", newline="") as file:
                steps = list(csv.DictReader(file))
            rows = self._device_rows(outcome, sampler)
            summary = summarize_steps(steps, rows, entry["record"])
            files = {"steps.csv.gz": csv_gz(steps, list(COLUMNS)), "server.log": self.log_tail(2000).encode()}
            if gpu := _gpu_rows(rows, outcome):
                files["gpu.csv.gz"] = csv_gz(gpu, list(GPU_COLUMNS))
            found: dict[str, bytes] = {}
            further: dict[str, float] = {}
            self.out_of_memory = outcome["status"] == "oom"
            if outcome["status"] == "ok":
                try:
                    found, further = self._profiler.files(key, folder, self._scratch)
                except (UserError, ValueError, OSError) as error:
                    outcome = {**outcome, "status": "profiler_failed", "message": str(error)}
            yield self._session.store(entry, outcome, {**summary, **further}, facts, self.command, {**files, **found})

    def _device_rows(self, outcome: Mapping[str, Any], sampler: GpmSampler | None) -> dict[str, list[Row]]:
        """Return the device counters of each phase; profiled steps are not what they are about."""
        if sampler is None or "end_monotonic_s" not in outcome or self._session.server_record["server"]["profiler"]:
            return {}
        begin, middle, end = (
            outcome[name] for name in ("start_monotonic_s", "prefill_end_monotonic_s", "end_monotonic_s")
        )
        return {"prefill": sampler.rows(begin, middle), "decode": sampler.rows(middle, end)}

    def _facts(self) -> dict[str, Any]:
        """Return what the engine says of itself, its log's words included."""
        try:
            facts: dict[str, Any] = json.loads((self._out / "engine.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        log = self._log.read_text(encoding="utf-8", errors="replace")
        model = self._session.server_record["model"]
        architecture = ModelArchitecture.from_dict(model["architecture"])
        record = self._session.server_record
        sizes = Sizes.of(adapter_for(record["engine"]["adapter"]).flags, record["server"]["args"])
        loaded = weights_in_log(log, sizes)
        facts["weights_bytes"] = loaded or sizes.engines * architecture.weight_bytes(model["dtype"])
        facts["weights_bytes_source"] = "log" if loaded else "architecture"
        facts["attention_backend"] = logged[1] if (logged := ATTENTION.search(log)) else None
        if facts.get("kv_pool_tokens"):
            facts["kv_pool_bytes"] = facts["kv_pool_tokens"] * architecture.kv_bytes_per_token(model["dtype"])
            facts["kv_pool_bytes"] *= sizes.kv_copies(architecture.kv_heads)
        return facts

    def _spec(self) -> dict[str, Any]:
        names = ("batch", "prompt_tokens", "output_tokens", "detokenize", "temperature", "warmup_steps", "seed")
        return {
            "flags": self._session.flags(),
            "profiler": self._session.server_record["server"]["profiler"],
            "runs": [
                {
                    "key": key,
                    "window": entry["record"].get("window"),
                    "outputs": entry["record"].get("outputs", "final"),
                    **{name: entry["record"][name] for name in names},
                }
                for key, entry in self._entries.items()
            ],
        }

    def _environment(self) -> dict[str, str]:
        env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        if self._session.server_record["model"]["weights"] != "hub":
            env["HF_HUB_OFFLINE"] = "1"
        env.update(self._session.network())
        record = self._session.server_record
        return {**env, **gpu_variables(record), **record["server"]["env"], "PYTHONPATH": self._import_path()}

    def _import_path(self) -> str:
        """Return where the engine's interpreter finds this package, and nothing else of this environment."""
        folder = (self._scratch / "package").absolute()
        folder.mkdir(exist_ok=True)
        link = folder / "memgap"
        if not link.exists():
            link.symlink_to(Path(memgap.__file__).parent, target_is_directory=True)
        return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


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
