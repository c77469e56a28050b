"""The kinds of measurement, one folder each, and which of them a point's record is of."""

from collections.abc import Mapping
from typing import Any

from memgap.kinds.endpoint import ENDPOINT
from memgap.kinds.kind import Kind
from memgap.kinds.locust.kind import LOADTEST
from memgap.kinds.offline.kind import OFFLINE
from memgap.kinds.online.kind import ONLINE
from memgap.kinds.phased import PHASED
from memgap.kinds.restart import RESTART
from memgap.kinds.static.kind import STATIC
from memgap.labs.kind import LABS
from memgap.tuning.kind import TUNING

KINDS: tuple[Kind, ...] = (ONLINE, STATIC, OFFLINE, LOADTEST, TUNING, RESTART, ENDPOINT, PHASED, LABS)


def kind_of(record: Mapping[str, Any]) -> Kind:
    """Return the kind of a point's record; raises ValueError for one of a kind that this version does not have."""
    for kind in KINDS:
        if kind.owns(record):
            return kind
    raise ValueError(f"a point of the kind {record.get('kind')!r}, which this version of memgap does not know")


def session_of(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures the point of a record."""
    return kind_of(record).session_name(record)
