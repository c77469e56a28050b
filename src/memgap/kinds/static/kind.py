"""Static batches: all requests of a batch begin together, the next ones when the last of them has ended."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memgap.kinds.kind import Kind
from memgap.kinds.static.point import is_static, static_session_name

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring


class Static(Kind):
    """One worker process that loads the model once. Its points are those of a sweep whose engine runs no server."""

    serves = False

    def owns(self, record: Mapping[str, Any]) -> bool:
        """See Kind."""
        return is_static(record)

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return static_session_name(record)

    def measuring(self) -> "Measuring[Any]":
        """See Kind."""
        from memgap.kinds.static.measure import MEASURING

        return MEASURING

    def label(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f"{record['model']['name']}, batches of {record['batch_cap']}"


STATIC = Static()
