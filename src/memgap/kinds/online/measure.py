"""How a point of a sweep is measured: a load on the servers of its record."""

from memgap.host.group import Group
from memgap.host.protocol import HostPlan, Server
from memgap.host.replicas import Replicas
from memgap.kinds.online.kind import ONLINE
from memgap.session.measuring import Measuring
from memgap.session.phases import ResetCaches, Window, probe_steps
from memgap.session.progress import clock
from memgap.stats.averaging import chosen
from memgap.store.document import PointDocument


def result(point: PointDocument) -> str:
    """Return throughput, ITL and duration."""
    summary = chosen(point["summary"])
    itl_ms = summary.get("itl_mean_ms")
    itl = "" if itl_ms is None else f", ITL {itl_ms:.1f} ms"
    return f"{summary['total_throughput_tok_s']:.0f} tok/s{itl} in {clock(summary['duration_s'])}"


def servers(plan: HostPlan) -> Server:
    """Return the host of a server record: a group of servers where it has a topology."""
    return Group(plan) if "topology" in plan.record["server"] else Replicas(plan)


MEASURING: Measuring[Server] = Measuring(
    servers, (ResetCaches(), Window()), ONLINE.label, result, ONLINE.work, probe=probe_steps
)
