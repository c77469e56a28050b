"""Runs a session. By hand: `python workflow/scripts/run_session.py --plan results/plans/NAME.json`."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from memgap.canonical import canonical_json
from memgap.containers.inside import check_container, check_same_memgap
from memgap.engine.failure import ServerFailureError
from memgap.engine.identity import engine_python
from memgap.errors import DAMAGE, UserError
from memgap.host.replicas import Replicas
from memgap.kinds.registry import kind_of, session_of
from memgap.models.staging import offline_variables
from memgap.points.point import check_same_server
from memgap.redact import redact
from memgap.session.lease import Leases
from memgap.session.measure import Measurement, Point
from memgap.session.neighbours import processes_on_gpu
from memgap.session.progress import Progress, TimeLeft, clock
from memgap.session.watch import StoppedError, StopWatch
from memgap.store.atomic import keep_others_from_writing, write_text
from memgap.store.points import SPARED, PointStore
from memgap.study.plan import add_plan_arguments, requested_plan
from memgap.study.stop import Choice, Seen, choose

LEASE_WAIT_S = 120.0
START_FAILURES = 2
"""After that many failed starts in a row the remaining points are recorded as failed without another try."""

Plan = Mapping[str, Any]


class Session:
    """The points of one plan that are still to be measured, and how they get measured."""

    measurement: type[Measurement] = Measurement

    def __init__(self, plan: Plan, results: Path, progress: Progress, watch: StopWatch) -> None:
        self._plan = plan
        self._results = results
        self._progress = progress
        self._watch = watch
        self._leases = Leases(results / "leases", watch.stop, progress.say)
        self._store = PointStore(results / "points", may_write=lambda key: self._leases.require(f"point {key}"))
        self._server_record = check_same_server(plan)
        self._neighbours: list[str] = []

    def run(self) -> None:
        """Measure what is missing and write results/sessions/NAME.json.

        Raises UserError where the user has to mend something first, StoppedError where the session was told to stop;
        points that were finished before stay.
        """
        self._store.require_writable()
        name = self._plan["session"]
        with self._leases, self._lease(f"session {name}"):
            write_text(self._results / "plans" / f"{name}.json", canonical_json(self._plan) + "\n")
            if self._plan["options"]["recorded"] is not None:
                self._restore(self._plan["options"]["recorded"])
                return
            spared = self._spared()
            todo = [point for point in self.todo() if point["key"] not in spared]
            todo.sort(key=lambda point: self._leases.is_busy(f"point {point['key']}"))  # another session has those
            self._say_plan(len(todo))
            if todo:
                check_container(self._server_record["engine"])
                self._measure(todo)
            self._write_outcome()

    def _lease(self, name: str) -> AbstractContextManager[None]:
        return self._leases.hold(name, LEASE_WAIT_S, self._watch.check)

    @contextmanager
    def _claimed(self, points: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
        """Keep other sessions from the points; yields those that still have to be measured then."""
        with ExitStack() as stack:
            for key in sorted(point["key"] for point in points):
                stack.enter_context(self._lease(f"point {key}"))
            yield [point for point in points if self._is_wanted(point["key"])]

    def _restore(self, recorded: str) -> None:
        """Take the points from recorded data instead of measuring them."""
        # these need pandas, which an engine's environment may lack
        from memgap.recorded.files import study_folder
        from memgap.recorded.load import restore

        points = self._plan["points"]
        keys, session = [point["key"] for point in points], session_of(points[0]["record"])
        store = PointStore(self._results / "points")  # nothing is measured, so the points need no leases of their own
        found = restore(study_folder(recorded), session, keys, store)
        self._write_outcome()
        self._progress.say(f"{found} of {len(keys)} points from the recorded data in {recorded}, nothing was measured")

    def todo(self) -> list[Mapping[str, Any]]:
        """Return the points of the plan that have to be measured, in order."""
        return [point for point in self._plan["points"] if self._is_wanted(point["key"])]

    def _is_wanted(self, key: str) -> bool:
        status = self._store.status(key)
        failed = status not in ("ok", "missing")
        return (
            status in ("missing", "garbled")
            or "recorded" in (self._store.read(key) or {})
            or (failed and self._plan["options"]["remeasure_failed"])
            or self._asked_again(key)
        )

    def _asked_again(self, key: str) -> bool:
        """Whether `remeasure` names the point and it was not measured for that very list yet."""
        if self._plan["options"].get("again"):
            return True
        asked = self._plan["options"]["remeasure"]
        if key not in asked:
            return False
        stored = self._store.read(key)
        return stored is None or key not in stored.get("remeasured_for", [])

    def _measure(self, todo: Sequence[Mapping[str, Any]]) -> None:
        options = self._plan["options"]
        left = TimeLeft([_work(point["record"]) for point in todo])
        self._neighbours = processes_on_gpu()
        if self._neighbours:
            self._progress.say(
                f"already on the GPU: {', '.join(self._neighbours)}; points measured beside others are invalid"
            )
        with self._scratch() as scratch, self._servers_in(scratch) as server:
            measurement = self.measurement(
                server,
                self._store,
                self._results / "datasets",
                scratch,
                options["interval_s"],
                options["remeasure"],
            )
            failures = 0
            for number, point in enumerate(self._in_order(todo), start=1):
                label = f"point {number} of {len(todo)} ({_label(point['record'])})"
                began_s = time.monotonic()
                with self._claimed([point]) as wanted:
                    if not wanted:
                        self._progress.say(f"{label}: measured by another session meanwhile")
                    else:
                        failures = self._one(server, measurement, point, label, failures)
                left.finished(time.monotonic() - began_s)
                remaining_s = left.remaining_s()
                if number < len(todo) and remaining_s is not None:
                    most = "at most " if self._plan["stop"] else ""
                    self._progress.say(f"{most}{len(todo) - number} left, about {clock(remaining_s)}")

    def _servers_in(self, scratch: Path) -> Replicas:
        """Return the session's server, or its replicas, not started yet; its log goes into `scratch`."""
        options = self._plan["options"]
        return Replicas(
            self._server_record,
            self._model_target(),
            engine_python(options["python"], self._server_record["engine"]["image"]),
            scratch / "server.log",
            options["startup_timeout_s"],
            options["port"],
            self._network(),
        )

    def _in_order(self, todo: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the points to measure, each once the one before it is stored, as far as the stop rules want them."""
        if not self._plan["stop"]:
            yield from todo
            return
        by_key = {point["key"]: point for point in todo}
        seen = self._seen(without=by_key)
        while wanted := [key for key in self._choice(seen).wanted if key in by_key]:
            yield by_key[wanted[0]]
            stored = self._store.read(by_key.pop(wanted[0])["key"])
            if stored is not None:
                seen[wanted[0]] = Seen.of(stored)

    def _choice(self, seen: Mapping[str, Seen]) -> Choice:
        return choose(self._plan["points"], self._plan["stop"], seen)

    def _seen(self, without: Collection[str] = ()) -> dict[str, Seen]:
        """Return what the stored points showed, but for those that have to be measured again."""
        seen = {}
        for key in (point["key"] for point in self._plan["points"]):
            if key not in without and self._store.status(key) not in ("missing", "garbled"):
                seen[key] = Seen.of(self._store.read(key) or {})
        return seen

    def _spared(self) -> dict[str, str]:
        """Return the keys of the points that need not be measured, with the reason."""
        return self._choice(self._seen()).spared if self._plan["stop"] else {}

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Make the session's working folder, private to the user; what a killed session left in it goes first."""
        folder = self._results / "sessions" / f".{self._plan['session']}.work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _one(
        self, server: Replicas, measurement: Measurement, point: Mapping[str, Any], label: str, failures: int
    ) -> int:
        """Measure one point; returns how many starts in a row have failed."""
        key, record = point["key"], point["record"]
        try:
            if not server.alive:
                if failures >= START_FAILURES:
                    raise ServerFailureError(
                        "crash", f"not tried: the server failed to start {failures} times in a row", ""
                    )
                self._start(server, label)
                failures = 0
        except ServerFailureError as failure:
            self._tell(label, measurement.record_failure(key, record, failure))
            return failures + 1
        try:
            point = measurement.measure(key, record, self._watch, lambda done, total: self._passing(label, done, total))
        except ServerFailureError as failure:
            point = measurement.record_failure(key, record, failure)
        self._tell(label, point)
        if not server.alive:
            server.stop()
        return failures

    def _start(self, server: Replicas, label: str) -> None:
        self._progress.say(f"starting the server for {label}")
        began_s = time.monotonic()

        def waiting() -> None:
            self._watch.check()
            self._progress.update(f"waiting for the server, {clock(time.monotonic() - began_s)}")

        try:
            server.start(waiting)
        except ServerFailureError as failure:
            if self._neighbours:
                failure.args = (f"{failure}; on the GPU before it: {', '.join(self._neighbours)}",)
            raise
        declared, running = self._server_record["engine"]["version"], server.facts.version
        if (
            running is not None
            and declared not in ("not-installed", "auto")
            and running.split("+")[0] != declared.split("+")[0]
        ):
            raise UserError(
                f"the points belong to {self._server_record['engine']['package']} {declared}, "
                f"but the server is {running}; "
                "set engines.*.version to it or install the other one."
            )
        self._progress.say(f"server ready after {clock(server.start_s)}")

    def _passing(self, label: str, done: int, total: int) -> None:
        self._progress.update(f"{label}: {done} of {total} requests")

    def _tell(self, label: str, point: Point) -> None:
        if point["status"] != "ok":
            self._progress.say(f"{label}: {point['status']}: {point['error']['message']}")
            return
        summary, verdict = point["summary"], point["verdict"]
        doubts = "; ".join(one["text"] for one in verdict["reasons"])
        judged = f" ({verdict['verdict']}: {doubts})" if doubts else ""
        self._progress.say(
            f"{label}: {summary['total_throughput_tok_s']:.0f} tok/s, "
            f"ITL {summary.get('itl_mean_ms', float('nan')):.1f} ms in {clock(summary['duration_s'])}{judged}"
        )

    def _say_plan(self, todo: int) -> None:
        total = len(self._plan["points"])
        if todo == 0:
            self._progress.say(f"all {total} points are in the store already")
        elif todo < total:
            self._progress.say(f"{todo} of {total} points to measure, the others are in the store")
        else:
            self._progress.say(f"{total} points to measure")

    def _network(self) -> dict[str, str]:
        """Return the variables that keep the engine off the network, where its node has none."""
        return offline_variables(self._results) if self._plan["options"].get("offline_nodes") else {}

    def _model_target(self) -> str:
        model = self._server_record["model"]
        if model["weights"] == "synthetic":
            return str((self._results / "models" / self._plan["model_folder"]).absolute())
        return str(model["path"] if model["weights"] == "path" else model["hub_id"])

    def _write_outcome(self) -> None:
        spared = self._spared()
        points = [
            {"key": key, "status": SPARED, "reason": spared[key]}
            if key in spared
            else {"key": key, "status": self._store.status(key)}
            for key in (point["key"] for point in self._plan["points"])
        ]
        outcome = {"session": self._plan["session"], "points": points}
        if spared:
            self._progress.say(f"{len(spared)} points were not needed: {next(iter(spared.values()))}")
        write_text(self._results / "sessions" / f"{self._plan['session']}.json", canonical_json(outcome) + "\n")


def _work(record: Mapping[str, Any]) -> float:
    return kind_of(record).steps(record)


def _label(record: Mapping[str, Any]) -> str:
    return kind_of(record).label(record)


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


def _session_class(plan: Plan) -> type[Session]:
    """Return what measures the plan's points; all of them are of one kind."""
    name = type(kind_of(plan["points"][0]["record"])).__name__
    if name == "LoadTest":
        from memgap.kinds.locust.session import LoadTestSession

        return LoadTestSession
    if name == "Static":
        from memgap.kinds.static.session import StaticBatchSession

        return StaticBatchSession
    if name == "Offline":
        from memgap.kinds.offline.session import OfflineSession

        return OfflineSession
    return Session


def run_sessions(job: Callable[[Callable[[Plan], None]], None], results: Path, log: Path | None) -> int:
    """Call `job` with what measures a session plan; returns the exit status of `run_stoppable`."""

    def sessions(watch: StopWatch, stream: Any) -> None:
        def measure(plan: Plan) -> None:
            check_plan(plan)
            _session_class(plan)(plan, results, Progress(plan["session"], stream), watch).run()

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


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status of `run_sessions`."""
    parser = argparse.ArgumentParser(description="Measure the points of a session.")
    add_plan_arguments(parser)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args(argv)
    return run_sessions(lambda measure: measure(requested_plan(options, "session")), options.results, options.log)
