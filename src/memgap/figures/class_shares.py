"""Where a profiled step's GPU time goes by kernel class, brought to the wall time of the unprofiled step."""

import math

import pandas as pd

from memgap.figures.offline_points import main_setting

ATTENTION = ("attention", "kv_write")
MATMUL = ("matmul",)
UNCLASSIFIED = "unclassified"
PREFERRED = ("nsys", "torch")
SETTING = ("prompt_tokens", "mode")
PARTS = ("attention", "matmul", "cpu", "other")
COLUMNS = ["model", "batch", "part", "share_fraction", "step_ms", "of", "unclassified_fraction", "profiler"]
WALL, BUSY = "unprofiled step", "time with a kernel"
_KINDS = {"attention": ATTENTION, "matmul": MATMUL}


def class_steps(classes: pd.DataFrame, phase: str = "decode") -> pd.DataFrame:
    """Return the class rows of one phase and one profiled point a model and batch, of the model's main setting.

    nsys, which costs the host less, goes before torch.profiler where a point has both.
    """
    own = classes[classes["phase"] == phase]
    rank = own["profiler"].map({name: place for place, name in enumerate(PREFERRED)}).fillna(len(PREFERRED))
    own = main_setting(own.assign(rank=rank), SETTING)
    if own.empty:
        return own
    # the unprofiled twin's wall time comes first, then the better profiler
    ordered = own.assign(alone=own["wall_ms_per_step"].isna()).sort_values(["alone", "rank"], kind="stable")
    first = ordered.groupby(["model", "batch"], sort=False)["key"].transform("first")
    return ordered[ordered["key"] == first].sort_index()


def class_ms(own: pd.DataFrame) -> dict[str, float]:
    """Return ms a step by class of one point, summing to the time in which any kernel ran.

    Kernels of several streams overlap: their sum is brought down to the union, in proportion.
    """
    sums = own.groupby("kernel_class", sort=False)["gpu_ms_per_step"].sum()
    total, busy = float(sums.sum()), float(own["busy_ms_per_step"].iloc[0])
    scale = busy / total if total > 0 and busy > 0 else 1.0
    return {str(name): float(value) * scale for name, value in sums.items()}


def shares(classes: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, batch and part of a decode step with the columns of `COLUMNS`.

    `of` says what the shares are of: the unprofiled step, or, where that was not measured, the time with a kernel.
    """
    rows = []
    for (model, batch), own in class_steps(classes).groupby(["model", "batch"], sort=False):
        head = own.iloc[0].to_dict()
        parts = class_ms(own)
        busy = sum(parts.values())
        wall = head["wall_ms_per_step"]
        whole = busy if math.isnan(wall) else max(wall, busy)
        if not whole > 0:
            continue
        found = {name: sum(parts.get(kind, 0.0) for kind in kinds) for name, kinds in _KINDS.items()}
        found["cpu"] = math.nan if math.isnan(wall) else whole - busy
        found["other"] = busy - found["attention"] - found["matmul"]
        unknown = parts.get(UNCLASSIFIED, 0.0) / whole
        of = BUSY if math.isnan(wall) else WALL
        for part in PARTS:
            rows.append((model, batch, part, found[part] / whole, whole, of, unknown, head["profiler"]))
    data = pd.DataFrame(rows, columns=COLUMNS)
    places = {model: place for place, model in enumerate(dict.fromkeys(classes["model"]))}
    order = data.assign(place=data["model"].map(places)).sort_values(["place", "batch"], kind="stable")
    return order.drop(columns="place").reset_index(drop=True)
