"""Runs a session: its points are claimed, measured on its host, and stored."""

import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, cast

from memgap.canonical import canonical_json
from memgap.containers.inside import check_container, check_same_memgap
from memgap.engine.identity import check_installed, engine_python
from memgap.errors import DAMAGE, UserError
from memgap.host.gpus import gpu_variables
from memgap.host.inherited import differing, inherited
from memgap.host.protocol import Entry, HostPlan
from memgap.models.staging import offline_variables
from memgap.points.plan import SessionPlan
from memgap.points.point import check_same_server
from memgap.redact import redact
from memgap.session.bench import Bench
from memgap.session.chooser import Chooser, StopRules
from memgap.session.lease import Leases
from memgap.session.measuring import Measuring, Place, PointRun
from memgap.session.progress import Progress, clock
from memgap.session.stop import Choice, Seen
from memgap.session.time_left import TimeLeft
from memgap.session.watch import StoppedError, StopWatch
from memgap.store.atomic import keep_others_from_writing, write_text
from memgap.store.points import SPARED, PointStore
from memgap.store.results import Results

LEASE_WAIT_S = 120.0

Plan = Mapping[str, Any]
"""Something that is to be a `SessionPlan`; see `check_plan`."""


class Session:
    """The points of one plan that are still to be measured, and how they get measured.

    `measuring` is how the kind of its points says, `chooser` what its stop rules say, unless they are given.
    """

    def __init__(
        self,
        plan: SessionPlan,
        results: Path,
        progress: Progress,
        watch: StopWatch,
        measuring: Measuring[Any] | None = None,
        chooser: Chooser | None = None,
    ) -> None:
        self._plan = plan
        self._results = Results(results)
        self._progress = progress
        self._watch = watch
        self._given = measuring
        self._chooser = chooser or StopRules(plan)
        self._leases = Leases(self._results.leases, watch.stop, progress.say)
        self.store = PointStore(self._results.points, may_write=lambda key: self._leases.require(f"point {key}"))
        self._server_record = check_same_server(plan)

    @cached_property
    def _measuring(self) -> Measuring[Any]:
        # made late: what only takes recorded points needs nothing that measures
        return self._given or measuring_of(self._plan["points"][0]["record"])

    def run(self) -> None:
        """Measure what is missing and write results/sessions/NAME.json.

        Raises UserError where the user has to mend something first, StoppedError where the session was told to stop;
        points that were finished before stay.
        """
        self.store.require_writable()
        name = self._plan["session"]
        with self.held():
            write_text(self._results.plan(name), canonical_json(self._plan) + "\n")
            if self._plan["options"]["recorded"] is not None:
                self._restore(self._plan["options"]["recorded"])
                return
            spared = self._choice().spared
            todo = [point for point in self.todo() if point["key"] not in spared]
            todo.sort(key=lambda point: self._leases.is_busy(f"point {point['key']}"))  # another session has those
            self._say_plan(len(todo))
            if todo:
                self._measure(todo)
            self._write_outcome()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other sessions from this one."""
        with self._leases, self.lease(f"session {self._plan['session']}"):
            yield

    def lease(self, name: str) -> AbstractContextManager[None]:
        """Hold what a name says, waiting a while for somebody else who does."""
        return self._leases.hold(name, LEASE_WAIT_S, self._watch.check)

    @contextmanager
    def bench(self, beside: Callable[[], list[int]] = list) -> Iterator[Bench[Any]]:
        """Make what the session measures on, not started yet; it is stopped in the end. See Place and Bench."""
        self._measuring.require()
        check_container(self._server_record["engine"])
        options, datasets = self._plan["options"], self._results.datasets
        engine, interval_s = self._server_record["engine"], float(options["interval_s"])
        python = engine_python(options["python"], engine["image"])
        check_installed(engine, python)
        offline = offline_variables(self._results.folder) if options.get("offline_nodes") else {}
        with self._scratch() as scratch:
            host_plan = HostPlan(
                self._server_record,
                self._model_target(),
                python,
                scratch,
                float(options["startup_timeout_s"]),
                options["port"],
                {**gpu_variables(self._server_record), **offline},
                datasets,
                interval_s,
            )
            place = Place(datasets, scratch, interval_s, self._watch, beside=beside)
            with self._measuring.host(host_plan) as host:
                yield Bench(self._measuring, host, place, self.store, self._progress, options["remeasure"])

    @contextmanager
    def _claimed(self, points: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Keep other sessions from the points; yields those that still have to be measured then."""
        with ExitStack() as stack:
            for key in sorted(point["key"] for point in points):
                stack.enter_context(self.lease(f"point {key}"))
            yield [point for point in points if self._is_wanted(point["key"])]

    def _restore(self, recorded: str) -> None:
        """Take the points from recorded data instead of measuring them."""
        # needs pandas, which an engine's environment may lack
        from memgap.kinds.registry import session_of
        from memgap.recorded.files import study_folder
        from memgap.recorded.load import restore

        points = self._plan["points"]
        keys, session = [point["key"] for point in points], session_of(points[0]["record"])
        store = self._results.store  # nothing is measured, so the points need no leases of their own
        found = restore(study_folder(recorded), session, keys, store)
        self._write_outcome()
        self._progress.say(f"{found} of {len(keys)} points from the recorded data in {recorded}, nothing was measured")

    def todo(self) -> list[Entry]:
        """Return the points of the plan that have to be measured, in order."""
        return [point for point in self._plan["points"] if self._is_wanted(point["key"])]

    def _is_wanted(self, key: str) -> bool:
        status = self.store.status(key)
        failed = status not in ("ok", "missing")
        return (
            status in ("missing", "garbled")
            or "recorded" in (self.store.read(key) or {})
            or (failed and self._plan["options"]["remeasure_failed"])
            or self._asked_again(key)
            or bool(self._other_variables(key))
        )

    def _other_variables(self, key: str) -> list[str]:
        """Return the inherited variables that matter and are others than when the stored point was measured."""
        stored = self.store.read(key) if self.store.status(key) not in ("missing", "garbled") else None
        before = (stored or {}).get("provenance", {}).get("environment")
        if stored is None or before is None:  # measured before they were kept
            return []
        record = stored["record"]
        return differing(before, inherited(os.environ, record["server"]["env"]), record["engine"]["adapter"])

    def _asked_again(self, key: str) -> bool:
        """Whether `remeasure` names the point and it was not measured for that very list yet."""
        if self._plan["options"].get("again"):
            return True
        asked = self._plan["options"]["remeasure"]
        if key not in asked:
            return False
        stored = self.store.read(key)
        return stored is None or key not in stored.get("remeasured_for", [])

    def _measure(self, todo: Sequence[Entry]) -> None:
        left = TimeLeft([self._measuring.work(point["record"]) for point in todo])
        with self.bench() as bench:
            bench.look_around(self._server_record)
            bench.ready = lambda run: self._probe(run, left, len(todo))
            # a host that measures by itself is told of all points at its start, whatever they will show
            groups = [todo] if bench.host.at_once else ([point] for point in self._in_order(todo))
            number = 0
            for group in groups:
                with self._claimed(group) as wanted:
                    for point in group:
                        number += 1
                        label = f"point {number} of {len(todo)} ({self._measuring.label(point['record'])})"
                        lasted_s: float | None = None
                        if point in wanted:
                            lasted_s = bench.measure(point, label, wanted[wanted.index(point) :])
                        else:
                            self._progress.say(f"{label}: measured by another session meanwhile")
                        left.finished(lasted_s, self._step_s(point["key"]))
                        self._say_left(len(todo) - number, left.remaining_s())

    def _probe(self, run: PointRun[Any], left: TimeLeft, points: int) -> None:
        """Tell what is ahead once the host is there, where that can be known: by the time that its steps take."""
        if self._measuring.probe is None or not left.to_probe:
            return
        for at_once, step_s in self._measuring.probe(run, left.to_probe).items():
            left.probed(at_once, step_s)
        if (ahead_s := left.remaining_s()) is not None:
            most = "at most " if self._chooser.adaptive else ""
            self._progress.say(f"{most}{points} point{'s' * (points != 1)} ahead, about {clock(ahead_s)}")
        if not run.host.alive:  # a probe that was too much for the host takes nothing from the points below it
            run.host.stop()
            run.start()

    def _step_s(self, key: str) -> float | None:
        """Return how long a step of a measured point took, None where that is not known."""
        step_ms = (self.store.read(key) or {}).get("summary", {}).get("tpot_mean_ms")
        return None if step_ms is None else step_ms / 1e3

    def _say_left(self, points: int, remaining_s: float | None) -> None:
        if points and remaining_s is not None:
            most = "at most " if self._chooser.adaptive else ""
            self._progress.say(f"{most}{points} left, about {clock(remaining_s)}")

    def _in_order(self, todo: Sequence[Entry]) -> Iterator[Entry]:
        """Yield the points to measure, each once the one before it is stored, as far as the chooser wants them."""
        left = {point["key"]: point for point in todo}
        seen = self._seen(without=left)
        while True:
            wanted = set(self._chooser.wanted(seen).wanted)
            key = next((key for key in left if key in wanted), None)
            if key is None:
                return
            yield left.pop(key)
            stored = self.store.read(key)
            if stored is not None:
                seen[key] = Seen.of(stored)

    def _seen(self, without: Collection[str] = ()) -> dict[str, Seen]:
        """Return what the stored points showed, but for those that have to be measured again."""
        seen = {}
        for key in (point["key"] for point in self._plan["points"]):
            if key not in without and self.store.status(key) not in ("missing", "garbled"):
                seen[key] = Seen.of(self.store.read(key) or {})
        return seen

    def _choice(self) -> Choice:
        return self._chooser.wanted(self._seen() if self._chooser.adaptive else {})

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Make the session's working folder, private to the user; what a killed session left in it goes first."""
        folder = self._results.work(self._plan["session"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _say_plan(self, todo: int) -> None:
        total = len(self._plan["points"])
        if todo == 0:
            self._progress.say(f"all {total} points are in the store already")
        elif todo < total:
            self._progress.say(f"{todo} of {total} points to measure, the others are in the store")
        else:
            self._progress.say(f"{total} points to measure")
        if others := sorted({name for point in self._plan["points"] for name in self._other_variables(point["key"])}):
            self._progress.say(
                f"points in the store were measured with other values of {', '.join(others)} in the environment: "
                "they are measured again"
            )

    def _model_target(self) -> str:
        model = self._server_record["model"]
        if self._plan["model_folder"] is not None:
            return str(self._results.model(self._plan["model_folder"]).absolute())
        return str(model.get("path" if model["weights"] == "path" else "hub_id", ""))

    def _write_outcome(self) -> None:
        spared = self._choice().spared
        points = [
            {"key": key, "status": SPARED, "reason": spared[key]}
            if key in spared
            else {"key": key, "status": self.store.status(key), "content": self.store.digest(key)}
            for key in (point["key"] for point in self._plan["points"])
        ]
        outcome = {"session": self._plan["session"], "points": points}
        if spared:
            self._progress.say(f"{len(spared)} points were not needed: {next(iter(spared.values()))}")
        write_text(self._results.outcome(self._plan["session"]), canonical_json(outcome) + "\n")


def measuring_of(record: Mapping[str, Any]) -> Measuring[Any]:
    """Return how the point of a record is measured, which its kind says."""
    from memgap.kinds.registry import kind_of

    return kind_of(record).measuring()


class _Tee:
    """Writes to the terminal and to the job's log, as far as the disk takes it, secrets redacted."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._first, self._second = first, second

    def isatty(self) -> bool:
        return self._first.isatty()

    def write(self, text: str) -> int:
        told = redact(text)
        if not text.startswith("\r"):
            with suppress(OSError):
                self._second.write(told)
                self._second.flush()
        return self._first.write(told)

    def flush(self) -> None:
        self._first.flush()


def check_plan(plan: Plan) -> None:
    """Raises UserError for something that is no session plan."""
    try:
        whole = {"session", "points", "options", "model_folder", "stop"} <= plan.keys()
        records = [point["record"] for point in plan["points"]] if whole else []
        whole = bool(records) and all(isinstance(point["key"], str) for point in plan["points"])
        whole = whole and all(record.keys() >= {"harness", "engine", "model", "server"} for record in records)
        whole = whole and isinstance(plan["session"], str) and isinstance(plan["options"], dict)
    except DAMAGE:
        whole = False
    if not whole:
        raise UserError(
            "not a session plan: it needs session, points, options, stop and model_folder; let Snakemake make it again."
        )


def run_sessions(job: Callable[[Callable[[Plan], None]], None], results: Path, log: Path | None) -> int:
    """Call `job` with what measures a session plan; returns the exit status of `run_stoppable`."""

    def sessions(watch: StopWatch, stream: Any) -> None:
        def measure(plan: Plan) -> None:
            check_plan(plan)
            Session(cast(SessionPlan, plan), results, Progress(plan["session"], stream), watch).run()

        job(measure)

    return run_stoppable(sessions, results, log)


def run_stoppable(job: Callable[[StopWatch, Any], None], results: Path, log: Path | None) -> int:
    """Call `job` with a watch and a stream; returns the exit status after one sentence for whatever went wrong.

    0: every point has a result, failures included; 1: stopped by a signal or a dead driver; 2: the user has to mend
    something.
    """
    keep_others_from_writing()
    watch = StopWatch()
    watch.install()
    stream: Any = sys.stderr
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("")
            # a session that still runs may write to the same file, so that both have to append
            stream = _Tee(sys.stderr, log.open("a", encoding="utf-8"))
        check_same_memgap()
        job(watch, stream)
    except UserError as error:
        print(f"memgap: {error}", file=stream, flush=True)
        return 2
    except OSError as error:
        print(f"memgap: {error.filename or results}: {error.strerror}; finished points are kept.", file=stream)
        return 2
    except StoppedError as stopped:
        print(
            f"memgap: stopped ({stopped}); finished points are kept, run again for the rest.", file=stream, flush=True
        )
        return 1
    return 0
