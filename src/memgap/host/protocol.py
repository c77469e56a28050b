"""What a session relies on: a host is started, measured on and stopped, whatever runs in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from memgap.engine.base import EngineAdapter, EngineFacts
from memgap.engine.failure import ServerFailureError

Entry = Mapping[str, Any]
"""A point of a session plan: {"key", "record"}."""
Check = Callable[[], None]
"""Called while something is waited for; raises where the session has to stop."""


def no_check() -> None:
    """Let everything go on."""


@dataclass(frozen=True)
class HostPlan:
    """What a session's host is made from: `record` is the part of a record that all its points share, `env` are
    variables of the session's own, `scratch` a folder that ends with the session."""

    record: Mapping[str, Any]
    model_target: str
    python: str
    scratch: Path
    datasets: Path
    startup_timeout_s: float
    interval_s: float
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class Host(Protocol):
    """Something that points are measured on, as a context manager that stops it.

    `start` may be called again after a failure or an end. `noun` is what a user is told of it ("server"). A host that
    measures `at_once` is started for all points that are left and measures them in that order by itself; another one is
    asked for each point. `local`: it runs on this machine, whose processes and GPUs can be looked at.
    """

    @property
    def noun(self) -> str: ...

    @property
    def at_once(self) -> bool: ...

    @property
    def local(self) -> bool: ...

    @property
    def api_key(self) -> str: ...

    @property
    def start_s(self) -> float:
        """How long the last start took, in seconds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def alive(self) -> bool:
        """Whether everything of it runs."""

    @property
    def urls(self) -> list[str]:
        """Where a load is sent; empty where nothing listens."""

    @property
    def metrics_urls(self) -> list[str]:
        """The servers whose /metrics page is read; empty where there is none."""

    @property
    def pids(self) -> list[int]:
        """The roots of the process trees whose use is measured."""

    @property
    def helper_pids(self) -> list[int]:
        """Processes of its own beside them, which may be on the GPU."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that its processes get beside the session's own, which say the GPUs it uses."""

    @property
    def commands(self) -> list[list[str]]:
        """The command line of each process that it starts."""

    @property
    def facts(self) -> EngineFacts:
        """What the engine says of itself."""

    @property
    def told(self) -> dict[str, Any]:
        """Everything that a point says of its engine: the facts, the start's duration and what else is known."""

    @property
    def startup_rows(self) -> list[dict[str, float]]:
        """Memory over time of the last start, see memgap.telemetry.startup."""

    def has(self, key: str) -> bool:
        """Whether the point of a key can be measured, or its result be had, without a start."""

    def start(self, check: Check = no_check, points: Sequence[Entry] = ()) -> None:
        """Start, for these points where they are measured at once, and return when ready. Raises ServerFailureError."""

    def stop(self) -> None:
        """Stop; returns when nothing of it is left."""

    def settle(self) -> bool:
        """After failed requests: return once it is known to be well or gone (true), or to hang (false)."""

    def reset_caches(self) -> bool:
        """Empty what would let a point profit from an earlier one; false where that cannot be done."""

    def death(self) -> ServerFailureError:
        """Return why what ran has ended."""

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of its logs, secrets redacted."""


class Server(Host, Protocol):
    """A host that answers requests."""

    @property
    def adapter(self) -> EngineAdapter:
        """What differs between engines."""

    @property
    def profile_folders(self) -> list[Path]:
        """Where the engine's profiler writes, if it has one."""

    def detokenize(self, model: str, token_ids: list[int]) -> str:
        """Return the text of token ids by the engine's own tokenizer. Raises ServerFailureError."""
