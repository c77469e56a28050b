"""Which session measures a point, by its record alone, whatever kind of point it is."""

from collections.abc import Mapping
from typing import Any

from memgap.kinds.locust.point import is_loadtest, loadtest_session_name
from memgap.kinds.offline.point import is_offline, offline_session_name
from memgap.study.point import session_name


def session_of(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures the point of a record."""
    if is_loadtest(record):
        return loadtest_session_name(record)
    return offline_session_name(record) if is_offline(record) else session_name(dict(record))
