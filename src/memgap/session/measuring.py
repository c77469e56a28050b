"""How a kind of point is measured: on which host, in which phases, judged how, told how."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from memgap.engine.failure import ServerFailureError
from memgap.host.protocol import Entry, Host, HostPlan
from memgap.session.time_left import Work
from memgap.session.watch import StopWatch
from memgap.store.document import ErrorDocument, PointDocument
from memgap.telemetry.sampler import ENGINE_COLUMNS, Sampler
from memgap.telemetry.window import left_out
from memgap.verdict import judge
from memgap.verdict.evidence import Evidence
from memgap.verdict.judge import Verdict

H = TypeVar("H", bound=Host)
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a session measures: its folders, its clock, and what `beside` knows of other servers of ours that idle on
    the same GPU (process ids). `gpus` are the ids of the host's GPUs on this machine."""

    datasets: Path
    scratch: Path
    interval_s: float
    watch: StopWatch
    hardware: dict[str, Any] = field(default_factory=dict)
    gpus: Sequence[str] = ()
    beside: Callable[[], list[int]] = list


@dataclass
class PointRun(Generic[H]):
    """One point while it is measured: its phases find here what they measure on, and leave what came of it.

    `summary`, `files` and `added` (further fields of point.json) are stored; each of `evidence` is judged, with the
    name of its window. `emptied`: the host's caches hold nothing of what was measured so far. `kept` is the phases'
    own, by their names; `secrets` are the keys that the host had meanwhile. `start` starts the host again. A context
    manager, which ends the sampling.
    """

    entry: Entry
    host: H
    place: Place
    start: Callable[[], None]
    on_progress: Callable[[int, int], None]
    error: ErrorDocument | None = None
    summary: dict[str, float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    added: dict[str, Any] = field(default_factory=dict)
    evidence: list[tuple[str, Evidence]] = field(default_factory=list)
    emptied: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    _sampler: Sampler | None = None
    _sampling: ExitStack = field(default_factory=ExitStack)

    @property
    def key(self) -> str:
        """The point's key."""
        return str(self.entry["key"])

    @property
    def record(self) -> Record:
        """The point's record."""
        record: Record = self.entry["record"]
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampling.close()
        self._samples.unlink(missing_ok=True)

    @property
    def _samples(self) -> Path:
        return self.place.scratch / f"{self.key}.samples.csv"

    def fail(self, kind: str, message: str, log_tail: str) -> None:
        """Say that the point has failed; the first failure counts, and no further phase runs."""
        self.error = self.error or {"kind": kind, "message": message, "log_tail": log_tail}

    def fail_with(self, failure: ServerFailureError) -> None:
        """Say that the point has failed with its host."""
        self.fail(failure.kind, str(failure), failure.log_tail)

    def sample(self) -> None:
        """Begin to sample the host, unless that was begun; returns once there is a first sample."""
        if self._sampler is None:
            urls, pids, own = self._sampled()
            adapter, interval_s = self.record["engine"]["adapter"], self.place.interval_s
            sampler = Sampler(urls, adapter, pids, own, interval_s, self._samples, self.place.gpus)
            self._sampler = self._sampling.enter_context(sampler)
            self._sampler.wait_for_first_row()

    def end_sampling(self) -> None:
        """Take the last sample; the rows stay."""
        self._sampling.close()

    def rebind(self) -> None:
        """Sample what the host has become."""
        if self._sampler is not None:
            self._sampler.rebind(*self._sampled())

    def know_secrets(self) -> None:
        """Remember the host's key, which changes with every start, so that nothing stored holds it."""
        self.secrets |= {self.host.api_key} - {""}

    def _sampled(self) -> tuple[list[str], list[int], list[int]]:
        return self.host.metrics_urls, self.host.pids, self.host.helper_pids + self.place.beside()

    def rows(self, start_monotonic_s: float) -> list[dict[str, float]]:
        """Return all samples, `time_s` counted from a moment; of a host elsewhere only what its engine says."""
        rows = self._sampler.rows(start_monotonic_s) if self._sampler is not None else []
        if self.host.local:
            return rows
        engine = ("time_s", *ENGINE_COLUMNS, *map(left_out, ENGINE_COLUMNS))
        return [{name: value for name, value in row.items() if name in engine} for row in rows]


class Phase(Protocol[H]):
    """A part of a measurement. Phases run one after another until one says that the point has failed."""

    def run(self, run: PointRun[H]) -> None:
        """Do it. Raises ServerFailureError where the host fails, StoppedError where the session has to stop."""

    def conclude(self, run: PointRun[H]) -> None:
        """Put what came of it into the run, after all phases, when nothing is measured any more."""
        return


def _nothing(*_: Any) -> None:
    """Nothing is needed, nothing is added."""


@dataclass(frozen=True)
class Measuring(Generic[H]):
    """How the points of a kind are measured.

    `host` makes the host of a session's points. `label` names a point and `result` says what came of one that was
    measured. `work` is what its duration depends on, and `probe` measures the seconds of a step with given numbers of
    requests in flight, for the estimate at the start. `require` raises UserError before a host is started for
    nothing. `complete` adds to what is stored of a point, after all phases and without a say in its verdict.
    `phases_of` are the phases of a record, for kinds whose points differ in them.
    """

    host: Callable[[HostPlan], H]
    phases: tuple[Phase[H], ...]
    label: Callable[[Record], str]
    result: Callable[[PointDocument], str]
    work: Callable[[Record], Work]
    judge: Callable[[Evidence], Verdict] = judge
    require: Callable[[], None] = _nothing
    complete: Callable[[PointRun[H]], None] = _nothing
    probe: Callable[[PointRun[H], Sequence[int]], Mapping[int, float]] | None = None
    phases_of: Callable[[Record], tuple[Phase[H], ...]] | None = None

    def phases_for(self, record: Record) -> tuple[Phase[H], ...]:
        """Return the phases that measure the point of a record."""
        return self.phases if self.phases_of is None else self.phases_of(record)
