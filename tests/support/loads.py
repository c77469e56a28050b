"""What the load generator's requests came to."""

from collections import Counter
from collections.abc import Sequence

from memgap.load.records import RequestResult


def status_counts(results: Sequence[RequestResult]) -> dict[str, int]:
    """Return how many requests have each status, of those that occur."""
    return dict(Counter(result.status for result in results))
