"""A worker process that measures all points of a session by itself, in the engine's interpreter."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import memgap
from memgap.canonical import canonical_json
from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.failure import ServerFailureError
from memgap.errors import UserError
from memgap.host.gpus import server_gpus
from memgap.host.protocol import Check, Entry, Host, HostPlan
from memgap.host.startup_phases import StartupPhases
from memgap.host.supervised import Supervised
from memgap.redact import redact
from memgap.telemetry.sampler import Sampler

POLL_S = 0.1


class Wrapper(Protocol):
    """A program around the worker, such as a profiler."""

    after_the_end: bool
    """Its results are there only when the worker has ended."""
    patience: float
    """How many times longer than usual a worker may take in it."""

    def require(self) -> None:
        """Raises UserError where it cannot be run on this machine."""

    def command(self, worker: list[str], scratch: Path) -> list[str]:
        """Return the worker's argument list in it."""

    def death(self, log: str) -> str:
        """Return what a worker's early end is called."""


class Bare:
    """The worker alone."""

    after_the_end = False
    patience = 1.0

    def require(self) -> None:
        """Nothing is needed."""

    def command(self, worker: list[str], scratch: Path) -> list[str]:
        """See Wrapper."""
        return worker

    def death(self, log: str) -> str:
        """See Wrapper."""
        lines = [line for line in redact(log).splitlines() if line.strip()]
        return f"the worker ended: {lines[-1].strip() if lines else 'it left no message'}"


@dataclass(frozen=True)
class Job:
    """What a kind's worker is: `python -m module --spec FILE --out FOLDER` in the engine's interpreter.

    It writes FOLDER/engine.json when the engine is there, and `outcome` (with "{key}") for each point by one rename;
    after an outcome with the status "oom" it ends. `facts` makes what a point says of the engine from engine.json, the
    log and the monotonic time of the start. `beside` runs while the worker does.
    """

    module: str
    noun: str
    outcome: str
    run_timeout_s: float
    spec: Callable[[Sequence[Entry]], Mapping[str, Any]]
    facts: Callable[[dict[str, Any], str, float], dict[str, Any]]
    env: Mapping[str, str]
    wrapper: Callable[[Sequence[Entry]], Wrapper] = lambda points: Bare()
    beside: Sequence[AbstractContextManager[Any]] = ()


class Worker(Host):
    """The worker of a session; its log, its folder `out` and its samples lie in the session's scratch.

    `began_s` is the monotonic time of the last start.
    """

    at_once = True

    def __init__(self, plan: HostPlan, job: Job) -> None:
        self._plan, self._job, self.noun = plan, job, job.noun
        self.scratch, self.out = plan.scratch, plan.scratch / "out"
        self.wrapper: Wrapper = Bare()
        self.began_s = self._moved_s = 0.0
        self._log = plan.scratch / "worker.log"
        self._adapter = plan.record["engine"]["adapter"]
        self._process: Supervised | None = None
        self._sampler: Sampler | None = None
        self._open = ExitStack()
        self._command: list[str] = []
        self._keys: list[str] = []
        self._finished = 0
        self._phases = StartupPhases(self._log, {})
        self._over = True
        """Nothing more will come of the worker: it was not started, or seen to have ended."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.alive

    @property
    def pids(self) -> list[int]:
        """The process id."""
        return [self._process.pid] if self._process is not None else []

    @property
    def commands(self) -> list[list[str]]:
        """The command line, none before the first start."""
        return [self._command] if self._command else []

    @property
    def environment(self) -> dict[str, str]:
        """See Host; beside the kind's own it keeps the engine off the network as far as its model allows."""
        env = {"DO_NOT_TRACK": "1", **self._job.env}
        if self._plan.record["model"]["weights"] != "hub":
            env["HF_HUB_OFFLINE"] = "1"
        return {**env, **self._plan.env, **self._plan.record["server"]["env"]}

    @property
    def facts(self) -> EngineFacts:
        """What the engine says of itself."""
        told, known = self.told, {one.name for one in fields(EngineFacts)}
        return EngineFacts(**{name: value for name, value in told.items() if name in known and value is not None})

    @property
    def told(self) -> dict[str, Any]:
        """See Host; as far as the worker got."""
        try:
            engine = json.loads((self.out / "engine.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {**asdict(EngineFacts()), "start_s": None}
        return {
            **asdict(EngineFacts()),
            "start_s": self.start_s,
            "start_phases_s": dict(self.startup_s),
            **self._job.facts(engine, self._log_text(), self.began_s),
        }

    @property
    def startup_s(self) -> Mapping[str, float]:
        """See Host."""
        return self._phases.durations_s

    @property
    def startup_rows(self) -> list[dict[str, float]]:
        """The samples from the start until the engine was there."""
        return [row for row in self.rows(self.began_s) if 0.0 <= row["time_s"] <= self.start_s + 0.5]

    def rows(self, start_monotonic_s: float) -> list[dict[str, float]]:
        """Return the samples of the worker's whole life, with `time_s` counted from a moment."""
        return self._sampler.rows(start_monotonic_s) if self._sampler is not None else []

    def has(self, key: str) -> bool:
        """Whether the worker measures the point, or has."""
        return key in self._keys and (self._outcome(key).exists() or not self._over)

    def start(self, check: Check = lambda: None, points: Sequence[Entry] = ()) -> None:
        """Start a worker for `points` and return when its engine is there.

        Raises ServerFailureError, hopeless where a program that it needs is not there ("no_profiler").
        """
        self.stop()
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.wrapper = self._job.wrapper(points)
        try:
            self.wrapper.require()
        except UserError as error:
            raise ServerFailureError("no_profiler", str(error), "", hopeless=True) from error
        self._over, self._finished, self._command = True, 0, self._command_for(points)
        self._keys = [one["key"] for one in points]
        gpus = server_gpus(self._plan.record).ids
        self.began_s = time.monotonic()
        try:
            for one in self._job.beside:
                self._open.enter_context(one)
            env = {**self.environment, "PYTHONPATH": self._import_path()}
            self._process = Supervised(self._command, self._log, env)
            self._phases = StartupPhases(self._log, adapter_for(self._adapter).startup_marks)
            samples = self.scratch / "samples.csv"
            sampler = Sampler([], self._adapter, self.pids, [], self._plan.interval_s, samples, gpus)
            self._sampler = self._open.enter_context(sampler)
            self._wait_until_ready(check)
            self._over = False
        except BaseException:
            self.stop()
            raise

    def _command_for(self, points: Sequence[Entry]) -> list[str]:
        spec = self.scratch / "spec.json"
        spec.write_text(canonical_json(self._job.spec(points)), encoding="utf-8")
        worker = [self._plan.python, "-m", self._job.module, "--spec", str(spec), "--out", str(self.out)]
        return self.wrapper.command(worker, self.scratch)

    def _wait_until_ready(self, check: Check) -> None:
        limit_s = self._plan.startup_timeout_s * self.wrapper.patience
        while not (self.out / "engine.json").exists():
            if not self.alive and not (self.out / "engine.json").exists():
                raise self.death()
            if time.monotonic() - self.began_s > limit_s:
                message = f"the {self.noun} was not ready after {limit_s:.0f} s (engines.*.startup_timeout_s)"
                raise ServerFailureError("start_timeout", message, self.log_tail())
            check()
            self._phases.look(time.monotonic() - self.began_s)
            time.sleep(POLL_S)
        self._moved_s = time.monotonic()
        self.start_s = self._moved_s - self.began_s
        self._phases.ready(self.start_s)

    def outcome(self, key: str, check: Check) -> dict[str, Any]:
        """Return what the worker wrote of a point, once it did. After one that ran out of memory the worker is stopped.

        Raises ServerFailureError where it has ended before, or no point came for too long.
        """
        while True:
            alive = self.alive
            if self._outcome(key).exists() and not (alive and self.wrapper.after_the_end):
                found: dict[str, Any] = json.loads(self._outcome(key).read_text(encoding="utf-8"))
                if found["status"] == "oom":
                    self._end()
                return found
            if not alive:
                self._end()
                raise self.death()
            finished = sum(self._outcome(one).exists() for one in self._keys)
            if finished > self._finished:
                self._finished, self._moved_s = finished, time.monotonic()
            if time.monotonic() - self._moved_s > self._job.run_timeout_s * self.wrapper.patience:
                self._end()
                message = f"the {self.noun} finished no point for too long"
                raise ServerFailureError("timeout", message, self.log_tail())
            check()
            time.sleep(POLL_S)

    def _outcome(self, key: str) -> Path:
        return self.out / self._job.outcome.format(key=key)

    def _end(self) -> None:
        self._over = True
        self.stop()

    def stop(self) -> None:
        """Stop the worker and everything beside it; what it has written stays until the next start."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._open.close()

    def death(self) -> ServerFailureError:
        """Return why the worker has ended, from its log."""
        log = self._log_text()
        kind = adapter_for(self._adapter).failure_kind(log) or "crash"
        return ServerFailureError(kind, self.wrapper.death(log), self.log_tail())

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the worker's log, secrets redacted: they are kept in points."""
        return redact("\n".join(self._log_text().splitlines()[-lines:]))

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _import_path(self) -> str:
        """Return where the engine's interpreter finds this package, and nothing else of this environment."""
        folder = (self.scratch / "package").absolute()
        folder.mkdir(exist_ok=True)
        if not (folder / "memgap").exists():
            (folder / "memgap").symlink_to(Path(memgap.__file__).parent, target_is_directory=True)
        return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
