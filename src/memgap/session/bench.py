"""A session's host and what measures on it: started where it is down, one point after another, each stored."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from memgap.engine.failure import ServerFailureError
from memgap.engine.identity import check_version
from memgap.host.protocol import Entry
from memgap.redact import redacted
from memgap.session.measuring import H, Measuring, Place, PointRun
from memgap.session.progress import Progress, clock
from memgap.session.provenance import UNKNOWN_HARDWARE, hardware, provenance
from memgap.store.document import PointDocument
from memgap.store.points import SCHEMA, PointStore
from memgap.verdict.judge import Verdict, worst

START_FAILURES = 2
"""After that many failed starts in a row the remaining points are recorded as failed without another try."""
LOG_LINES = 2000


@dataclass
class Bench(Generic[H]):
    """Measures points on one host, which somebody else stops in the end.

    `neighbours` are others on the GPU, named; `remeasured_for` is stored with every point.
    """

    measuring: Measuring[H]
    host: H
    place: Place
    store: PointStore
    progress: Progress
    neighbours: Sequence[str] = ()
    remeasured_for: Sequence[str] = ()
    _failed_starts: int = 0
    _hopeless: ServerFailureError | None = None

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
            if self.neighbours:
                failure.args = (f"{failure}; on the GPU before it: {', '.join(self.neighbours)}",)
            raise
        check_version(entry["record"]["engine"], self.host.facts.version, self.host.noun)
        self.progress.say(f"{self.host.noun} ready after {clock(self.host.start_s)}")

    def measure(self, entry: Entry, label: str, left: Sequence[Entry]) -> None:
        """Measure a point and store what came of it, a failure too. `left` are it and those that come after it.

        Raises StoppedError where the session has to stop: then nothing is stored.
        """
        place = replace(self.place, hardware=hardware() if self.host.local else UNKNOWN_HARDWARE)
        at_once = left if self.host.at_once else ()
        what = f"{len(left)} points" if self.host.at_once else label
        run = PointRun(
            entry,
            self.host,
            place,
            lambda: self.start(entry, what, at_once),
            lambda done, total: self.progress.update(f"{label}: {done} of {total} requests"),
        )
        with run:
            try:
                if not self.host.has(run.key):
                    self._start_again(run)
                for phase in self.measuring.phases:
                    if run.error is None:
                        phase.run(run)
            except ServerFailureError as failure:
                run.fail_with(failure)
            run.end_sampling()
            for phase in self.measuring.phases:
                phase.conclude(run)
        self._tell(label, self._stored(run))
        if not self.host.alive and not self.host.at_once:
            self.host.stop()

    def _start_again(self, run: PointRun[H]) -> None:
        if self._hopeless is not None:
            raise self._hopeless
        if self._failed_starts >= START_FAILURES:
            message = f"not tried: the {self.host.noun} failed to start {self._failed_starts} times in a row"
            raise ServerFailureError("crash", message, "")
        try:
            run.start()
        except ServerFailureError as failure:
            self._failed_starts += 1
            self._hopeless = failure if failure.hopeless else None
            raise
        self._failed_starts = 0

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
            "flags": [one.check for one in verdict.reasons],
            "error": redacted(run.error, run.secrets),
            "summary": {name: value for name, value in run.summary.items() if math.isfinite(value)},
            "engine": redacted(self.host.told, run.secrets),
            "hardware": run.place.hardware,
            "remeasured_for": list(self.remeasured_for),
            "verdict": verdict.as_dict(),
            "provenance": provenance(run.record["engine"]["package"], self.host.facts.version, self.host.commands),
        }
        whole: dict[str, Any] = {**point, **run.added}
        self.store.write(run.key, whole, {**run.files, "server.log": self.host.log_tail(LOG_LINES).encode()})
        return point

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
