"""point.json, typed: what is stored of a point beside its files; docs/figures.md describes the fields."""

from typing import Any, NotRequired, TypedDict


class ErrorDocument(TypedDict):
    """Why a point failed."""

    kind: str
    message: str
    log_tail: str


class VerdictDocument(TypedDict):
    """What is thought of a point's numbers; `verdict` is None where it failed or nothing is known to judge by."""

    verdict: str | None
    limit: str | None
    reasons: list[dict[str, Any]]


class PointDocument(TypedDict):
    """A point.json; a kind may add further fields."""

    schema: int
    key: str
    record: dict[str, Any]
    status: str
    flags: list[str]
    error: ErrorDocument | None
    summary: dict[str, float]
    engine: dict[str, Any]
    hardware: dict[str, Any]
    remeasured_for: list[str]
    verdict: VerdictDocument
    provenance: dict[str, Any]
    window: NotRequired[dict[str, float]]
    prefix_cache_emptied: NotRequired[bool]
    client: NotRequired[dict[str, Any]]
    gpus: NotRequired[list[dict[str, float]]]
    profile: NotRequired[dict[str, Any]]
    windows: NotRequired[dict[str, dict[str, Any]]]
    restarts: NotRequired[list[dict[str, float]]]
