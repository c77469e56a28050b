"""A session's host and what measures on it: started where it is down, one point after another, each stored."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, cast

from memgap.engine.failure import ServerFailureError
from memgap.engine.given import GivenFlags
from memgap.engine.identity import check_version
from memgap.host.gpus import server_gpus
from memgap.host.protocol import Entry
from memgap.redact import redacted, redacted_error
from memgap.session.measuring import H, Measuring, Phase, Place, PointRun, Record
from memgap.session.neighbours import processes_on_gpu
from memgap.session.progress import Progress, clock
from memgap.session.provenance import UNKNOWN_HARDWARE, hardware, provenance
from memgap.store.document import PointDocument
from memgap.store.points import SCHEMA, PointStore
from memgap.telemetry.gpus import Choice
from memgap.verdict.judge import Verdict, worst

START_FAILURES = 2
"""After that many failed starts in a row the remaining points are recorded as failed without another try."""
LOG_LINES = 2000


@dataclass
class Bench(Generic[H]):
    """Measures points on one host, which somebody else stops in the end.

    `remeasured_for` is stored with every point. `ready` is told the first point that a host was started for.
    """

    measuring: Measuring[H]
    host: H
    place: Place
    store: PointStore
    progress: Progress
    remeasured_for: Sequence[str] = ()
    ready: Callable[[PointRun[H]], None] | None = None
    _neighbours: Sequence[str] = ()
    _failed_starts: int = 0
    _hopeless: ServerFailureError | None = None

    def look_around(self, record: Record) -> None:
        """Tell who is on the GPUs of a record's host already, where it runs on this machine."""
        gpus = server_gpus(record) if self.host.local else Choice()
        if gpus.doubt:
            self.progress.say(f"which GPU will be used is not known yet: {gpus.doubt}")
        self._neighbours = processes_on_gpu(gpus.ids, self.place.beside())
        if self._neighbours:
            named = ", ".join(self._neighbours)
            self.progress.say(f"already on the GPU: {named}; points measured beside others are invalid")

    def start(self, entry: Entry, what: str, points: Sequence[Entry] = ()) -> None:
        """Start the host for a point, or for all `points` at once. Raises ServerFailureError; UserError where it is of
        another version than the point."""
        self.progress.say(f"starting the {self.host.noun} for {what}")
        began_s = time.monotonic()

        def waiting() -> None:
            self.place.watch.check()
            self.progress.update(f"waiting for the {self.host.noun}, {clock(time.monotonic() - began_s)}")

        try:
            self.host.start(waiting, points)
        except ServerFailureError as failure:
            if self._neighbours:
                failure.args = (f"{failure}; on the GPU before it: {', '.join(self._neighbours)}",)
            raise
        check_version(entry["record"]["engine"], self.host.facts.version, self.host.noun)
        self.progress.say(f"{self.host.noun} ready after {clock(self.host.start_s)}")

    def measure(self, entry: Entry, label: str, left: Sequence[Entry]) -> float:
        """Measure a point and store what came of it, a failure too. `left` are it and those that come after it.

        Returns the seconds that it took beside the start of its host. Raises StoppedError where the session has to
        stop: then nothing is stored.
        """
        at_once = left if self.host.at_once else ()
        what = f"{len(left)} points" if self.host.at_once else label

        def start() -> None:
            self.start(entry, what, at_once)
            run.place = self._place_of(entry)

        run = PointRun(
            entry,
            self.host,
            self._place_of(entry),
            start,
            lambda done, total: self.progress.update(f"{label}: {done}{_of(entry, total)} requests"),
        )
        phases = self.measuring.phases_for(entry["record"])
        began_s = time.monotonic()
        with run:
            try:
                if not self.host.has(run.key):
                    self._start_again(run)
                    began_s = time.monotonic()
                self._run_phases(run, phases)
            except ServerFailureError as failure:
                run.fail_with(failure)
            run.end_sampling()
            for phase in phases:
                phase.conclude(run)
        self._tell(label, self._stored(run))
        if not self.host.alive and not self.host.at_once:
            self.host.stop()
        return time.monotonic() - began_s

    def _run_phases(self, run: PointRun[H], phases: Sequence[Phase[H]]) -> None:
        try:
            for phase in phases:
                if run.error is None:
                    phase.run(run)
        except ServerFailureError as failure:
            run.fail_with(failure)
        if run.error is not None and not self.host.alive:
            self.place.watch.check_after_a_death()

    def _place_of(self, entry: Entry) -> Place:
        """Return the place with the machine and the GPUs of the host, which its processes may tell once it runs."""
        if not self.host.local:
            return replace(self.place, hardware=UNKNOWN_HARDWARE)
        gpus = server_gpus(entry["record"], [pid for pid in self.host.pids if pid])
        needed = GivenFlags.of(entry["record"]).gpus
        return replace(self.place, hardware=hardware(gpus, needed), gpus=gpus.ids)

    def _start_again(self, run: PointRun[H]) -> None:
        if self._hopeless is not None:
            raise self._hopeless
        if self._failed_starts >= START_FAILURES:
            message = f"not tried: the {self.host.noun} failed to start {self._failed_starts} times in a row"
            raise ServerFailureError("crash", message, "")
        try:
            run.start()
        except ServerFailureError as failure:
            self.place.watch.check_after_a_death()
            self._failed_starts += 1
            self._hopeless = failure if failure.hopeless else None
            raise
        self._failed_starts = 0
        ready, self.ready = self.ready, None
        if ready is not None:
            ready(run)

    def _stored(self, run: PointRun[H]) -> PointDocument:
        """Put a point into the store; returns its point.json."""
        verdict = self._verdict(run)
        self.measuring.complete(run)
        run.know_secrets()
        point: PointDocument = {
            "schema": SCHEMA,
            "key": run.key,
            "record": dict(run.record),
            "status": run.error["kind"] if run.error is not None else "ok",
            "flags": list(dict.fromkeys(one.check for one in verdict.reasons)),
            "error": redacted_error(run.error, run.secrets),
            "summary": {name: value for name, value in run.summary.items() if math.isfinite(value)},
            "engine": redacted(self.host.told, run.secrets, environment=False),
            "hardware": run.place.hardware,
            "remeasured_for": list(self.remeasured_for),
            "verdict": verdict.as_dict(),
            "provenance": provenance(run.record, self.host.facts.version, self.host.commands),
        }
        whole = cast(PointDocument, {**point, **run.added})
        self.store.write(run.key, whole, {**run.files, "server.log": self.host.log_tail(LOG_LINES).encode()})
        return whole

    def _verdict(self, run: PointRun[H]) -> Verdict:
        """Return the verdict on all that was measured: the worst one, each reason with the window that it is of."""
        found = [(name, self.measuring.judge(evidence)) for name, evidence in run.evidence]
        if len(found) == 1:
            return found[0][1]
        reasons = tuple(
            replace(reason, text=f"{name}: {reason.text}") for name, verdict in found for reason in verdict.reasons
        )
        limits = [verdict.limit for _, verdict in found]
        return Verdict(worst(reasons) if found else None, limits[-1] if limits else None, reasons)

    def _tell(self, label: str, point: PointDocument) -> None:
        if point["error"] is not None:
            self.progress.say(f"{label}: {point['status']}: {point['error']['message']}")
            return
        doubts = "; ".join(one["text"] for one in point["verdict"]["reasons"])
        judged = f" ({point['verdict']['verdict'] or 'not judged'}: {doubts})" if doubts else ""
        self.progress.say(f"{label}: {self.measuring.result(point)}{judged}")


def _of(entry: Entry, total: int) -> str:
    """Return what a load has in all, nothing for one in seconds: of that `total` is a bound that it may never reach."""
    return "" if "seconds" in entry["record"].get("load", {}) else f" of {total}"
