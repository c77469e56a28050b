"""What a session relies on: a host is started, measured on and stopped, whatever runs in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from memgap.engine.base import EngineAdapter, EngineFacts
from memgap.engine.failure import ServerFailureError

Entry = Mapping[str, Any]
"""A point of a session plan: {"key", "record"}."""
Check = Callable[[], None]
"""Called while something is waited for; raises where the session has to stop."""


@dataclass(frozen=True)
class HostPlan:
    """What a session's host is made from: `record` is the part of a record that all its points share, `env` are
    variables of the session's own, `scratch` is a folder that ends with the session, `interval_s` the time between two
    samples."""

    record: Mapping[str, Any]
    model_target: str
    python: str
    scratch: Path
    startup_timeout_s: float
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    datasets: Path = Path("datasets")
    interval_s: float = 0.25


class Host(Protocol):
    """Something that points are measured on; a context manager that stops it. What is said here holds where a host does
    not say otherwise.

    `start` may be called again after a failure or an end. `noun` is what a user is told of it ("server"). A host that
    measures `at_once` is started for all points that are left and measures them in that order by itself; another one is
    asked for each point. `local`: it runs on this machine, whose processes and GPUs can be looked at. `start_s` is how
    long the last start took.
    """

    noun: str
    at_once: bool = False
    local: bool = True
    api_key: str = ""
    start_s: float = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether everything of it runs."""

    @property
    def urls(self) -> list[str]:
        """Where a load is sent; empty where nothing listens."""
        return []

    @property
    def metrics_urls(self) -> list[str]:
        """The servers whose /metrics page is read; empty where there is none."""
        return self.urls

    @property
    def pids(self) -> list[int]:
        """The roots of the process trees whose use is measured."""
        return []

    @property
    def helper_pids(self) -> list[int]:
        """Processes of its own beside them, which may be on the GPU."""
        return []

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that its processes get beside the session's own; they say which GPUs it uses."""
        return {}

    @property
    def commands(self) -> list[list[str]]:
        """The command line of each process that it starts."""
        return []

    @property
    def facts(self) -> EngineFacts:
        """What the engine says of itself."""
        return EngineFacts()

    @property
    def told(self) -> dict[str, Any]:
        """Everything that a point says of its engine."""
        return {**asdict(self.facts), "start_s": self.start_s, "start_phases_s": dict(self.startup_s)}

    @property
    def startup_rows(self) -> list[dict[str, float]]:
        """Memory over time of the last start, see memgap.telemetry.startup."""
        return []

    @property
    def startup_s(self) -> Mapping[str, float]:
        """How long each phase of the last start took, in order; empty where that is not known."""
        return {}

    def has(self, key: str) -> bool:
        """Whether the point of a key can be measured, or its result be had, without a start."""
        return self.alive

    def start(self, check: Check = lambda: None, points: Sequence[Entry] = ()) -> None:
        """Start, for these points where they are measured at once, and return when ready. Raises ServerFailureError."""

    def stop(self) -> None:
        """Stop; returns when nothing of it is left."""

    def settle(self) -> bool:
        """After failed requests: return once it is known to be well or gone (true), or to hang (false)."""
        return True

    def reset_caches(self) -> bool:
        """Empty what would let a point profit from an earlier one; false where that cannot be done."""
        return True

    def death(self) -> ServerFailureError:
        """Return why what ran has ended."""

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of its logs, secrets redacted."""


class Server(Host, Protocol):
    """A host that answers requests."""

    adapter: EngineAdapter

    @property
    def member_urls(self) -> Mapping[str, str]:
        """Of a group of servers the address of each by its name; empty for other hosts."""
        return {}

    def before_the_reply(self, members: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return what a summary says of members that had a request before the one that answered it, from what each did
        in the window."""
        return {}

    @property
    def profile_folders(self) -> list[Path]:
        """Where the engine's profiler writes, if it has one."""
        return []

    def detokenize(self, model: str, token_ids: list[int]) -> str:
        """Return the text of token ids by the engine's own tokenizer. Raises ServerFailureError."""
