"""Checks names of what is measured: a column of a table of points, perhaps of a group of requests and of a phase."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import cache

from memgap.config.load import known
from memgap.errors import UserError
from memgap.labs.names import Metric, metric_of

SERIES = (
    *("output_tok_s", "sent_req_s", "done_req_s", "in_flight_reqs", "ttft_mean_ms", "running_reqs", "waiting_reqs"),
    *("kv_cache_usage_fraction", "gpu_power_w"),
)
"""Values over time, see `memgap.tables.over_time`."""


OFFLINE, BOTH = "offline", "both"


def check_metric(text: str, kind: str, phases: Collection[str], where: str) -> Metric:
    """Return a metric; raises UserError for one whose column or phase there is not."""
    found = metric_of(text)
    if names := column_names(kind):
        known(found.column, names, "metric", where)
    if found.phase:
        known(found.phase, phases, "phase", where)
    return found


def check_pattern(text: str, kind: str, where: str) -> None:
    """Raise UserError for a pattern of metrics, such as `start_*_s`, that no column fits."""
    names = column_names(kind)
    if names and not any(fnmatchcase(one, text) for one in names):
        raise UserError(f"{where}: no metric fits {text!r}.")


@cache
def column_names(kind: str) -> frozenset[str]:
    """Return the numbers that points of a kind of lab have, or of `BOTH`; none where the tables' packages are missing.

    They are the columns of the tables of points, and are needed only where a configuration has a lab.
    """
    try:
        from memgap.tables.offline_study import READ
        from memgap.tables.points import COUNT_COLUMNS, NUMBER_COLUMNS
    except ImportError:  # an engine's environment; Snakemake's has checked it
        return frozenset()
    table = READ["offline"]
    offline = frozenset(table.names) - frozenset(table.text)
    online = frozenset((*COUNT_COLUMNS, *NUMBER_COLUMNS))
    return offline | online if kind == BOTH else offline if kind == OFFLINE else online


def arm_of(text: str) -> tuple[str, str]:
    """Return arm and phase of `arm[@phase]`."""
    arm, _, phase = text.partition("@")
    return arm, phase


def one_phase(metric: Metric, phase: str, where: str) -> str:
    """Return the phase of a metric at an arm; raises UserError where each names another one."""
    if metric.phase and phase and metric.phase != phase:
        raise UserError(f"{where}: the metric names the phase {metric.phase!r} and the arm {phase!r}; name one.")
    return metric.phase or phase
