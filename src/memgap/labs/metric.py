"""Checks names of what is measured: a column of a table of points, perhaps of a group of requests and of a phase."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from memgap.config.load import known
from memgap.errors import UserError
from memgap.labs.names import Metric, metric_of
from memgap.profiling.classes import CLASSES

SERIES = (
    *("output_tok_s", "sent_req_s", "done_req_s", "in_flight_reqs", "ttft_mean_ms", "running_reqs", "waiting_reqs"),
    *("kv_cache_usage_fraction", "gpu_power_w", "itl_ms"),
)
"""Values over time; `itl_ms` are the gaps before tokens, of which the others are means over a second."""
GROUPS = "groups"
CLASS_COLUMNS = ("prefill_gpu_share", "decode_gpu_share")
"""Of offline points under a profiler: the share of a class of kernels, `decode_gpu_share.matmul`."""


def check_metric(text: str, plan: Mapping[str, Any], where: str, arm: str = "") -> Metric:
    """Return a metric of an arm, or of any; raises UserError for one whose column, group or phase there is not."""
    found, phases = metric_of(text), plan["phases"]
    kinds = {plan["kinds"][arm]} if arm else set(plan["kinds"].values())
    if found.group and found.column in CLASS_COLUMNS and "offline" in kinds:
        known(found.group, CLASSES, "class of kernels", where)
    elif found.group:
        known(found.group, plan["groups"], "group of requests", where)
        kinds = {GROUPS}
    columns = [column_names(kind) for kind in kinds]
    if all(columns) and not (found.group and found.column in CLASS_COLUMNS):
        known(found.column, frozenset().union(*columns), "metric", where)
    if found.phase:
        known(found.phase, phases, "phase", where)
    return found


def check_pattern(text: str, plan: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a pattern of metrics, such as `start_*_s`, that no column fits."""
    names = [one for kind in set(plan["kinds"].values()) for one in column_names(kind)]
    names += [f"{column}.{one}" for column in CLASS_COLUMNS for one in CLASSES]
    if not any(fnmatchcase(one, text) for one in names):
        raise UserError(f"{where}: no metric fits {text!r}.")


@cache
def column_names(kind: str) -> frozenset[str]:
    """Return the numbers that a point of a kind of lab has, or of `GROUPS` a group; none where packages are missing.

    They are the columns of the tables of points, and are needed only where a configuration has a lab.
    """
    try:
        from memgap.tables.groups import GROUP_COLUMNS
        from memgap.tables.offline_study import READ
        from memgap.tables.points import COUNT_COLUMNS, NUMBER_COLUMNS
    except ImportError:  # an engine's environment; Snakemake's has checked it
        return frozenset()
    if kind == "offline":
        table = READ["offline"]
        return frozenset(table.names) - frozenset(table.text)
    if kind == GROUPS:
        return frozenset(GROUP_COLUMNS) - {"group"}
    return frozenset((*COUNT_COLUMNS, *NUMBER_COLUMNS))


def arm_of(text: str) -> tuple[str, str]:
    """Return arm and phase of `arm[@phase]`."""
    arm, _, phase = text.partition("@")
    return arm, phase


def one_phase(metric: Metric, phase: str, where: str) -> str:
    """Return the phase of a metric at an arm; raises UserError where each names another one."""
    if metric.phase and phase and metric.phase != phase:
        raise UserError(f"{where}: the metric names the phase {metric.phase!r} and the arm {phase!r}; name one.")
    return metric.phase or phase
