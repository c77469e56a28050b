"""The plan of a session, typed: what its job reads. It is hashed and written as the plain mapping that it is."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from memgap.points.point import Record


class PlanEntry(TypedDict):
    """A point that a session is to measure."""

    key: str
    record: Record


class SessionOptions(TypedDict):
    """How a session runs, which is no part of a point; see `engines`, `collectors`, `remeasure` in docs/config.md."""

    python: str
    port: int | None
    startup_timeout_s: float
    interval_s: float
    remeasure: list[str]
    remeasure_failed: bool
    recorded: str | None
    offline_nodes: NotRequired[bool]
    again: NotRequired[bool]


class SessionPlan(TypedDict):
    """`model_folder` is that of made-up weights; `stop` are the rules that may spare points."""

    session: str
    points: list[PlanEntry]
    model_folder: str | None
    stop: list[Mapping[str, Any]]
    options: SessionOptions
