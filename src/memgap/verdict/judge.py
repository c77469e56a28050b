"""The verdict of a point: valid, suspect or invalid, with reasons, and who was its limit."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Final, Literal

from memgap.store.document import VerdictDocument
from memgap.verdict import client, counts, server
from memgap.verdict.evidence import Evidence, Reason

Level = Literal["valid", "suspect", "invalid"]
Limit = Literal["engine", "api-server", "client", "offered-load"]
OFFERED: Final = "offered-load"
"""The limit of a point whose throughput is what was asked of it."""

CHECKS = (*client.CHECKS, *counts.CHECKS, *server.CHECKS)
CLIENT_LIMITS = ("loop_lag", "client_standstill", "late_start", "client_cpu", "send_slip", "client_limit")
API_SERVER_LIMITS = ("api_server_cpu", "tokens_per_chunk", "ttft_gap", "e2e_gap", "starved_engine")
IDLE_WAITING = 0.5
"""An open loop with fewer waiting requests on average leaves the server room: its rate is the limit."""


@dataclass(frozen=True)
class Verdict:
    """`verdict` is the worst severity among `reasons`, "valid" without any; None where nothing is known to judge by.

    `limit` is None where nobody offers a load.
    """

    verdict: Level | None
    limit: Limit | None
    reasons: tuple[Reason, ...]

    def as_dict(self) -> VerdictDocument:
        """Return it as it is stored in point.json."""
        return {"verdict": self.verdict, "limit": self.limit, "reasons": [asdict(one) for one in self.reasons]}


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict of a measured point."""
    reasons = tuple(reason for reason in (check(evidence) for check in CHECKS) if reason is not None)
    return Verdict(worst(reasons), _limit(evidence, {one.check for one in reasons}), reasons)


def worst(reasons: Collection[Reason]) -> Level:
    """Return the worst severity among reasons, "valid" without any."""
    severities = {one.severity for one in reasons} - {"unknown"}
    return "invalid" if "invalid" in severities else "suspect" if severities else "valid"


def _limit(evidence: Evidence, found: set[str]) -> Limit:
    if found & set(CLIENT_LIMITS):
        return "client"
    if found & set(API_SERVER_LIMITS):
        return "api-server"
    if evidence.open_loop and (evidence.number("mean_waiting_reqs") or 0.0) < IDLE_WAITING:
        return OFFERED
    return "engine"
