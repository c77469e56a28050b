"""The servers of a race: each started for its turn and stopped after it, or all kept up and used in turn."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from memgap.canonical import canonical_json
from memgap.cores import usable_cores
from memgap.datasets.files import load_dataset
from memgap.engine.failure import ServerFailureError
from memgap.errors import UserError
from memgap.host.protocol import Entry, Host
from memgap.models.staging import model_folder_name
from memgap.points.plan import PlanEntry, SessionOptions, SessionPlan
from memgap.points.point import Point
from memgap.session.inputs import write_inputs
from memgap.session.progress import Progress
from memgap.session.run import Session
from memgap.session.watch import StopWatch
from memgap.store.atomic import write_text
from memgap.store.results import Results

CORES_PER_START = 4
LEAST_STARTS = 2
"""Servers that are kept up start together, one for so many cores and these at least: a start is mostly one thread."""
IN_TURN, WARM, TOGETHER = "in_turn", "warm", "together"


class Arm:
    """The session of one server, which stays open: points are measured as they are asked for."""

    def __init__(
        self, plan: SessionPlan, results: Path, progress: Progress, watch: StopWatch, servers: "Servers"
    ) -> None:
        self._session = Session(plan, results, progress, watch)
        self._plan, self._results = plan, Results(results)
        self._first: Entry = plan["points"][0]
        self._progress = progress
        self._servers = servers
        self._open = ExitStack()

    def __enter__(self) -> "Arm":
        with ExitStack() as opening:
            opening.enter_context(self._session.held())
            self._bench = opening.enter_context(self._session.bench(lambda: self._servers.pids_beside(self)))
            self._bench.look_around(self._first["record"])
            self._open = opening.pop_all()
        return self

    def __exit__(self, *what: object) -> None:
        self._open.close()

    @property
    def server(self) -> Host:
        """What the session measures on."""
        host: Host = self._bench.host
        return host

    def start(self) -> None:
        """Start the server before its turn; a failure is left to the first measurement, which tries again."""
        try:
            self._bench.start(self._first, "the race")
        except ServerFailureError:
            self.server.stop()

    def measure(self, points: Sequence[tuple[Point, str]]) -> None:
        """Measure points, also again, and store what came of each; not what another session stored meanwhile."""
        entries: list[PlanEntry] = [{"key": point.key, "record": point.record} for point, _ in points]
        if self.server.at_once:
            self.server.stop()  # it was started for the points of its last turn
        for place, (point, label) in enumerate(points):
            self._keep_plan(entries[place])
            stored = self._stored(point.key)
            with self._session.lease(f"point {point.key}"):
                if self._stored(point.key) == stored:
                    self._bench.measure(entries[place], label, entries[place:])
                else:
                    self._progress.say(f"{label}: measured by another session meanwhile")

    def _keep_plan(self, entry: PlanEntry) -> None:
        """Leave what `memgap rerun` needs: the session's own plan, which a sweep may write too, has other points."""
        alone: SessionPlan = {**self._plan, "session": f"rerun-{entry['key']}", "points": [entry]}
        write_text(self._results.plan(alone["session"]), canonical_json(alone) + "\n")

    def _stored(self, key: str) -> dict[str, Any] | None:
        store = self._session.store
        return None if store.status(key) == "garbled" else store.read(key)


class Servers:
    """Opens the sessions of a race or lab; a context manager that closes what is open.

    `options` are a session's by the engine's name. `mode`: servers are started for each turn, kept up until another one
    is needed, or all kept up.
    """

    def __init__(
        self, options: Mapping[str, Mapping[str, Any]], mode: str, results: Path, progress: Progress, watch: StopWatch
    ) -> None:
        self._options = options
        self._mode = mode
        self._made: set[str] = set()
        self._results = results
        self._progress = progress
        self._watch = watch
        self._sessions: dict[str, Arm] = {}

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *what: object) -> None:
        for session in list(self._sessions):
            self.close(session)

    def prepare(self, points: Sequence[Point]) -> None:
        """Where all servers are kept up: start those of the points that do not run yet, several at once."""
        if self._mode != TOGETHER:
            return
        opened = [self._session(one) for one in {one.session: one for one in points}.values()]
        idle = [one for one in opened if not (one.server.alive or one.server.at_once)]
        with ThreadPoolExecutor(max(LEAST_STARTS, usable_cores() // CORES_PER_START)) as pool:
            list(pool.map(Arm.start, idle))

    def measure(self, points: Sequence[tuple[Point, str]]) -> None:
        """Measure points of one server, each with its label."""
        own = points[0][0].session
        if self._mode == WARM:
            self.keep_only([own])
        session = self._session(points[0][0])
        for point, _ in points:
            self._require_inputs(point)
        session.measure(points)
        if self._mode == IN_TURN or session.server.at_once:
            self.close(own)

    def close(self, session: str) -> None:
        """Stop a server, where it is open."""
        if session in self._sessions:
            self._sessions.pop(session).__exit__()

    def keep_only(self, sessions: Iterable[str]) -> None:
        """Stop the servers whose configurations have left the race."""
        for session in set(self._sessions) - set(sessions):
            self.close(session)

    def pids_beside(self, asking: Arm) -> list[int]:
        """Return the process ids of the other servers."""
        return [pid for one in self._sessions.values() if one is not asking for pid in one.server.pids]

    def _session(self, point: Point) -> Arm:
        if point.session not in self._sessions:
            own = self._options[point.record["engine"]["name"]]
            options = {"remeasure": [], **own, "remeasure_failed": False}
            plan: SessionPlan = {
                "session": point.session,
                "points": [{"key": point.key, "record": point.record}],
                "model_folder": model_folder_name(point.record["model"]),
                "stop": [],
                "options": cast(SessionOptions, options),
            }
            self._require_inputs(point)
            session = Arm(plan, self._results, self._progress, self._watch, self)
            self._sessions[point.session] = session.__enter__()
        return self._sessions[point.session]

    def _require_inputs(self, point: Point) -> None:
        """Make the model's folder and the dataset of a point, as far as they are not there."""
        folder, dataset = model_folder_name(point.record["model"]), point.record.get("dataset", {}).get("key")
        if f"{folder} {dataset}" in self._made:
            return
        self._made.add(f"{folder} {dataset}")
        if folder is None or (Results(self._results).model(folder) / "config.json").exists():
            try:
                if dataset is not None:
                    load_dataset(Results(self._results).dataset(dataset))
            except UserError:
                pass
            else:
                return
        write_inputs({"points": [{"record": point.record}], "model_folder": folder}, self._results)
