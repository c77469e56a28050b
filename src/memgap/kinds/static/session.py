"""Measures a session's points of static batches: one worker process that loads the model once."""

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
from memgap.datasets.build import Prompt, warmup_prompts
from memgap.datasets.files import load_dataset
from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.failure import ServerFailureError
from memgap.engine.identity import NOT_INSTALLED, engine_python
from memgap.errors import UserError
from memgap.host.gpus import gpu_variables, server_gpus
from memgap.host.supervised import Supervised
from memgap.kinds.static.result import BATCH_COLUMNS, STEP_COLUMNS, batch_rows, load_result, step_rows, worked
from memgap.load.latency import summarize
from memgap.redact import redact
from memgap.session.measure import result_files
from memgap.session.provenance import hardware, provenance
from memgap.session.run import START_FAILURES, Session
from memgap.store.points import SCHEMA, csv_gz
from memgap.telemetry import sampler, startup, window
from memgap.telemetry.sampler import Sampler
from memgap.verdict import judge
from memgap.verdict.evidence import Evidence

RUN_TIMEOUT_S = 1800.0
"""A worker that finishes no point for so long hangs."""
POLL_S = 0.1

Entry = Mapping[str, Any]


class StaticBatchSession(Session):
    """The points of one plan that run as static batches of one model."""

    def _measure(self, todo: Sequence[Entry]) -> None:
        with self._claimed(todo) as wanted:
            self._measure_all(wanted)

    def _measure_all(self, todo: Sequence[Entry]) -> None:
        left = {point["key"]: point for point in todo}
        failures, total = 0, len(todo)
        with self._scratch() as scratch:
            while left:
                if failures >= START_FAILURES:
                    message = f"not tried: the worker failed to start {failures} times in a row"
                    for entry in left.values():
                        self._store_failure(entry, ServerFailureError("crash", message, ""), [])
                    return
                worker = _Worker(self, scratch, list(left.values()))
                failure = None
                try:
                    for key, outcome in worker.run():
                        entry = left.pop(key)
                        place = f"point {total - len(left)} of {total}"
                        self._tell_point(place, self._stored(entry, outcome, worker))
                except ServerFailureError as problem:
                    failure = problem
                failures = 0 if worker.loaded else failures + 1
                if failure is not None and left:
                    culprit = left.pop(next(iter(left)))
                    self._tell_point("", self._store_failure(culprit, failure, worker.command))

    @property
    def options(self) -> Mapping[str, Any]:
        """How the session runs, which is no part of a point."""
        options: Mapping[str, Any] = self._plan["options"]
        return options

    @property
    def server_record(self) -> Mapping[str, Any]:
        """The engine, the model and the options, which all points of the session share."""
        return self._server_record

    def model_target(self) -> str:
        """Return the folder or the hub's name of the model."""
        return self._model_target()

    def network(self) -> dict[str, str]:
        """Return the variables that keep the worker off the network, where its node has none."""
        return self._network()

    def check(self) -> None:
        """Raises StoppedError where the session has to stop."""
        self._watch.check()

    def say(self, text: str) -> None:
        """Tell the user."""
        self._progress.say(text)

    def prompts(self, record: Mapping[str, Any]) -> tuple[list[Prompt], list[Prompt]]:
        """Return the measured prompts of a point and those of its warm-up."""
        load = record["load"]
        stored = load_dataset(self._results / "datasets" / f"{record['dataset']['key']}.npz")
        measured = stored.prompts[: load["requests"]]
        return measured, warmup_prompts(stored.spec, n=load["warmup_requests"], like=measured)

    def _stored(self, entry: Entry, outcome: Mapping[str, Any], worker: "_Worker") -> dict[str, Any]:
        """Put what came of a point into the store; returns its point.json."""
        record = entry["record"]
        measured, _ = self.prompts(record)
        result = load_result(outcome, measured, record["batch_cap"])
        summary: dict[str, float] = {}
        rows = worker.rows(result.start_monotonic_s)
        files = {"server.log": worker.log_tail(2000).encode(), "startup.csv.gz": worker.startup_rows()}
        point = self._point(entry, str(outcome["status"]), outcome["message"], worker)
        if outcome["status"] == "ok":
            summary = {**summarize(result), **worked(outcome, measured, record["batch_cap"])}
            summary.update(window.summarise(rows, result.duration_s, int(summary["output_tokens"])))
            del summary["engine_telemetry_gap_s"]  # there are no metrics of a server that could fall silent
            verdict = judge(Evidence(record, summary, dataclasses.asdict(result.health), self._hardware()))
            point["verdict"], point["flags"] = verdict.as_dict(), [one.check for one in verdict.reasons]
            files |= result_files(result)
        point["summary"] = {name: value for name, value in summary.items() if math.isfinite(value)}
        point["window"] = {
            "start_unix_s": result.start_unix_s,
            "end_unix_s": result.start_unix_s + result.duration_s,
            "duration_s": result.duration_s,
        }
        columns = sampler.columns_of(rows)
        inside = [row for row in rows if -1.0 <= row["time_s"] <= result.duration_s + 1.0]
        files["telemetry.csv.gz"] = csv_gz(inside, columns)
        files["steps.csv.gz"] = csv_gz(step_rows(outcome), list(STEP_COLUMNS))
        files["batches.csv.gz"] = csv_gz(batch_rows(outcome, measured, record["batch_cap"]), list(BATCH_COLUMNS))
        self._store.write(entry["key"], point, files)
        return point

    def _store_failure(self, entry: Entry, failure: ServerFailureError, command: list[str]) -> dict[str, Any]:
        point = self._point(entry, failure.kind, str(failure), None)
        point["error"]["log_tail"] = failure.log_tail
        point["provenance"]["commands"] = [command]
        self._store.write(entry["key"], point, {"server.log": failure.log_tail.encode()})
        return point

    def _point(self, entry: Entry, status: str, message: str | None, worker: "_Worker | None") -> dict[str, Any]:
        record = entry["record"]
        engine = worker.facts() if worker is not None else {}
        log_tail = worker.log_tail() if worker is not None else ""
        command = worker.command if worker is not None else []
        return {
            "schema": SCHEMA,
            "key": entry["key"],
            "record": dict(record),
            "status": status,
            "flags": [],
            "error": None if status == "ok" else {"kind": status, "message": message, "log_tail": log_tail},
            "summary": {},
            "engine": {**dataclasses.asdict(EngineFacts()), "start_s": None, **engine},
            "hardware": self._hardware(),
            "remeasured_for": list(self.options["remeasure"]),
            "verdict": {"verdict": None, "limit": None, "reasons": []},
            "provenance": provenance(record["engine"]["package"], engine.get("version"), [command]),
        }

    def _hardware(self) -> dict[str, Any]:
        return hardware(server_gpus(self._server_record))

    def _tell_point(self, place: str, point: Mapping[str, Any]) -> None:
        record, summary = point["record"], point["summary"]
        label = f"{place} ({record['model']['name']}, batches of {record['batch_cap']})".strip()
        if point["status"] != "ok":
            self._progress.say(f"{label}: {point['status']}: {point['error']['message']}")
            return
        useful = summary["output_tokens"] / summary["computed_output_tokens"]
        self._progress.say(
            f"{label}: {summary['output_throughput_tok_s']:.0f} useful output tok/s "
            f"({useful:.0%} of the tokens it made) in {summary['duration_s']:.1f} s"
        )


class _Worker:
    """One worker process and what it leaves in its folder."""

    def __init__(self, session: StaticBatchSession, scratch: Path, entries: Sequence[Entry]) -> None:
        self._session = session
        self._entries = {entry["key"]: entry for entry in entries}
        self._scratch = scratch
        self._out = scratch / "out"
        self._log = scratch / "worker.log"
        self._samples = scratch / "samples.csv"
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        self._collecting: Sampler | None = None
        self._began_s = 0.0
        self.command: list[str] = []
        self.loaded = False

    def run(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the key and the outcome of each point, when it is there. Ends early after one that ran out of memory.

        Raises ServerFailureError where the worker dies or hangs, UserError where its version is not the points'.
        """
        spec = self._scratch / "spec.json"
        spec.write_text(canonical_json(self._spec()), encoding="utf-8")
        python = engine_python(self._session.options["python"], self._session.server_record["engine"]["image"])
        self.command = [python, "-m", "memgap.kinds.static.worker", "--spec", str(spec), "--out", str(self._out)]
        record = self._session.server_record
        adapter, interval_s = record["engine"]["adapter"], float(self._session.options["interval_s"])
        self._began_s = time.monotonic()
        process = Supervised(self.command, self._log, self._environment())
        try:
            gpus = server_gpus(record).ids
            with Sampler([], adapter, [process.pid], [], interval_s, self._samples, gpus) as self._collecting:
                self._session.say(f"loading {record['model']['name']} for {len(self._entries)} points")
                yield from self._collect(process)
        finally:
            process.stop()

    def _collect(self, process: Supervised) -> Iterator[tuple[str, dict[str, Any]]]:
        waiting, last_s = list(self._entries), self._began_s
        while waiting:
            alive = process.alive
            if not self.loaded and (self._out / "engine.json").exists():
                self.loaded, last_s = True, time.monotonic()
                self._check_version()
                self._session.say(f"model ready after {last_s - self._began_s:.0f} s")
            while waiting and (self._out / f"{waiting[0]}.json").exists():
                last_s = time.monotonic()
                outcome = json.loads((self._out / f"{waiting[0]}.json").read_text(encoding="utf-8"))
                yield waiting.pop(0), outcome
                if outcome["status"] == "oom":
                    return
            if waiting and not alive:
                kind = adapter_for(self._session.server_record["engine"]["adapter"]).failure_kind(self.log_tail(400))
                raise ServerFailureError(kind or "crash", f"the worker ended: {self._last_line()}", self.log_tail())
            self._check_time(last_s)
            self._session.check()
            time.sleep(POLL_S)

    def _check_time(self, last_s: float) -> None:
        waited_s = time.monotonic() - last_s
        limit_s = float(self._session.options["startup_timeout_s"])
        if not self.loaded and waited_s > limit_s:
            message = f"the model was not loaded after {limit_s:.0f} s (engines.*.startup_timeout_s)"
            raise ServerFailureError("start_timeout", message, self.log_tail())
        if self.loaded and waited_s > RUN_TIMEOUT_S:
            raise ServerFailureError("timeout", "the worker finished no point for too long", self.log_tail())

    def _check_version(self) -> None:
        declared, running = self._session.server_record["engine"]["version"], str(self.facts()["version"])
        if declared not in (NOT_INSTALLED, "auto", running):
            package = self._session.server_record["engine"]["package"]
            raise UserError(
                f"the points belong to {package} {declared}, but {running} is installed; "
                "set engines.*.version to it or install the other one."
            )

    def facts(self) -> dict[str, Any]:
        """Return what the worker says of itself, and how long it took until the model was ready."""
        try:
            facts: dict[str, Any] = json.loads((self._out / "engine.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        facts["start_s"] = facts.pop("loaded_monotonic_s") - self._began_s
        return facts

    def rows(self, window_start_s: float) -> list[dict[str, float]]:
        """Return the samples of the worker's whole life, times from the window's start."""
        return self._collecting.rows(window_start_s) if self._collecting is not None else []

    def startup_rows(self) -> bytes:
        """Return the memory from the worker's start until the model was ready, as a file."""
        ready_s = float(self.facts().get("start_s") or 0.0)
        rows = [row for row in self.rows(self._began_s) if 0.0 <= row["time_s"] <= ready_s + 0.5]
        try:
            with (self._out / "memory.csv").open(encoding="utf-8", newline="") as file:
                held = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
        except (OSError, ValueError, TypeError):
            held = []
        for row in rows:
            before = [one for one in held if one["time_monotonic_s"] - self._began_s <= row["time_s"]]
            if before:
                row.update({name: value for name, value in before[-1].items() if name != "time_monotonic_s"})
        return csv_gz(rows, list(startup.COLUMNS))

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the worker's log, secrets redacted: they are kept in points."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return redact("\n".join(text.splitlines()[-lines:]))

    def _last_line(self) -> str:
        lines = [line for line in self.log_tail().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it left no message"

    def _spec(self) -> dict[str, Any]:
        record = self._session.server_record
        model = record["model"]
        runs = []
        for key, entry in self._entries.items():
            size = entry["record"]["batch_cap"]
            measured, warmup = self._session.prompts(entry["record"])
            runs.append({"key": key, "batches": _batches(measured, size), "warmup": _batches(warmup, size)})
        return {
            "interval_s": self._session.options["interval_s"],
            "model": {
                "target": self._session.model_target(),
                "dtype": model["dtype"],
                "dummy": model["weights"] == "synthetic",
                "revision": model.get("revision") if model["weights"] == "hub" else None,
                "trust_remote_code": model.get("trust_remote_code") is True,
            },
            "options": record["server"]["args"],
            "runs": runs,
        }

    def _environment(self) -> dict[str, str]:
        env = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        if self._session.server_record["model"]["weights"] != "hub":
            env["HF_HUB_OFFLINE"] = "1"
        env.update(self._session.network())
        folder = (self._scratch / "package").absolute()
        folder.mkdir(exist_ok=True)
        if not (folder / "memgap").exists():  # this package and nothing else of this environment
            (folder / "memgap").symlink_to(Path(memgap.__file__).parent, target_is_directory=True)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        record = self._session.server_record
        return {**env, **gpu_variables(record), **record["server"]["env"], "PYTHONPATH": path}


def _batches(prompts: Sequence[Prompt], size: int) -> list[list[list[Any]]]:
    """Return the prompts in their order, `size` at a time, each as [token ids, output tokens]."""
    asked = [[list(map(int, one.token_ids)), int(one.output_tokens)] for one in prompts]
    return [asked[start : start + size] for start in range(0, len(asked), size)]
