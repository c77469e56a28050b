"""How a point of a sweep is measured: a load on the servers of its record."""

from collections.abc import Mapping
from typing import Any

from memgap.host.protocol import Server
from memgap.host.replicas import Replicas
from memgap.session.measuring import Measuring
from memgap.session.phases import ResetCaches, Window
from memgap.session.progress import clock
from memgap.store.document import PointDocument


def label(record: Mapping[str, Any]) -> str:
    """Return the model, the cap and what else tells points of one session apart."""
    repeat = f", repeat {record['repeat'] + 1}" if record["repeat"] else ""
    replicas = f", {record['server']['replicas']} replicas" if record["server"]["replicas"] > 1 else ""
    cap = f"cap {record['batch_cap']}{replicas}"
    return f"{record['model']['name']}, {cap}, {record['load']['requests']} requests{repeat}"


def result(point: PointDocument) -> str:
    """Return throughput, ITL and duration."""
    summary = point["summary"]
    return (
        f"{summary['total_throughput_tok_s']:.0f} tok/s, ITL {summary.get('itl_mean_ms', float('nan')):.1f} ms "
        f"in {clock(summary['duration_s'])}"
    )


def work(record: Mapping[str, Any]) -> float:
    """Return the requests by how many are in flight."""
    requests = float(record["load"]["requests"])
    return requests / min(float(record["batch_cap"]), requests)


MEASURING: Measuring[Server] = Measuring(Replicas, (ResetCaches(), Window()), label, result, work)
