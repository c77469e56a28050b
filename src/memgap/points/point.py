"""A point: its full record, its key, and the server that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memgap.canonical import content_key
from memgap.errors import UserError

Record = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A point: `record` is everything that its measurement depends on, `key` the hash of that record."""

    key: str
    record: Record
    session: str

    @staticmethod
    def of(record: Record, session: str) -> "Point":
        """Return the point of a record."""
        return Point(key=content_key(record), record=record, session=session)


def server_record(record: Mapping[str, Any]) -> Record:
    """Return the part of a point's record that decides which server it needs."""
    return {part: record[part] for part in ("harness", "engine", "model", "server")}


def server_key(record: Mapping[str, Any]) -> str:
    """Return the end of a session's name: the same for all points that one server can measure."""
    return content_key(server_record(record), 8)


def check_same_server(plan: Mapping[str, Any]) -> Record:
    """Return the one server record that all points of a session plan share.

    Raises UserError for a plan whose points need different servers.
    """
    servers = [server_record(point["record"]) for point in plan["points"]]
    if any(server != servers[0] for server in servers):
        raise UserError(f"session {plan['session']}: its points need different servers; make the plan again.")
    return servers[0]
