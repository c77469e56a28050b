"""The kernels of one profiled step with the counters of the same kernels, matched by name and order.

Timelines and counters come from different runs, since counting replays every kernel. The k-th kernel of a name in the
step gets the counters of the k-th counted kernel of that name, or, where fewer were counted, their mean.
"""

import pandas as pd

from memgap.figures.offline_points import main_setting
from memgap.tables.offline_study import OfflineTables

COUNTED = ("dram_read_fraction", "warps_in_flight_fraction")


def short_name(name: str) -> str:
    """Return a kernel's name without return type, parameters and template arguments."""
    text = name.removeprefix("void ").strip()
    cut = min((place for place in (text.find("<"), text.find("(")) if place > 0), default=len(text))
    return text[:cut]


def one_step(tables: OfflineTables, model: str, batch: float, phase: str = "decode") -> pd.DataFrame:
    """Return the kernels of one step (the last that the timelines have) with the columns of `COUNTED`.

    The rows are in the order of their start. Empty where the study has no timeline of this model and batch.
    """
    kernels = tables.kernels
    kernels = kernels[(kernels["model"] == model) & (kernels["batch"] == batch) & (kernels["phase"] == phase)]
    if kernels.empty:
        return kernels.assign(**dict.fromkeys(COUNTED, pd.Series(dtype=float)))
    kernels = kernels[kernels["key"] == kernels["key"].iloc[-1]]
    kernels = kernels[kernels["step"] == kernels["step"].max()].sort_values("start_ms", kind="stable")
    return _with_counters(kernels.reset_index(drop=True), _counted(tables.counters, model, batch, phase))


def _counted(counters: pd.DataFrame, model: str, batch: float, phase: str) -> pd.DataFrame:
    own: pd.DataFrame = counters[
        (counters["model"] == model) & (counters["batch"] == batch) & (counters["phase"] == phase)
    ]
    own = main_setting(own, ("prompt_tokens", "output_tokens"))
    if own.empty:
        return own
    own = own[own["key"] == own["key"].iloc[-1]]
    last: pd.DataFrame = own[own["step"] == own["step"].max()]
    return last.sort_values("instance", kind="stable")


def _with_counters(kernels: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    result: pd.DataFrame = kernels.assign(**dict.fromkeys(COUNTED, float("nan")))
    for naming in (lambda name: name, short_name):
        left = result[list(COUNTED)].isna().all(axis=1)
        mine, theirs = result.loc[left, "name"].map(naming), counted["name"].map(naming)
        order, their_order = mine.groupby(mine).cumcount(), theirs.groupby(theirs).cumcount()
        for column in COUNTED:
            exact = dict(zip(zip(theirs, their_order, strict=True), counted[column], strict=True))
            means = counted[column].groupby(theirs).mean().to_dict()
            values = [
                exact.get((name, place), means.get(name, float("nan"))) for name, place in zip(mine, order, strict=True)
            ]
            result.loc[left, column] = values
    return result


def as_steps(kernels: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return (times in ms, values) of a counter as a step curve that is zero between kernels; unknown ones are gaps."""
    times, values = [0.0], [0.0]
    for start, duration, value in kernels[["start_ms", "duration_ms", column]].itertuples(index=False):
        times += [start, start, start + duration, start + duration]
        values += [0.0, value, value, 0.0]
    return times, values
