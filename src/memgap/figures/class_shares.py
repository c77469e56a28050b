"""Where a profiled step's GPU time goes by kernel class, brought to the wall time of the unprofiled step."""

import pandas as pd

from memgap.figures.offline_points import main_setting

ATTENTION = ("attention", "kv_write")
MATMUL = ("matmul",)
UNCLASSIFIED = "unclassified"
PREFERRED = ("nsys", "torch")
SETTING = ("prompt_tokens", "mode")


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
