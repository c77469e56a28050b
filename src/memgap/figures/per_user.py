"""What figures over a user's tokens a second share: one row a model and load, rates of a user and of a GPU."""

import pandas as pd

from memgap.figures.points import offered, per_cap
from memgap.tables.fate import GOOD

USER, GPU = "user_output_tok_s", "gpu_output_tok_s"
ITL, OUTPUT, ENERGY = "itl_mean_ms", "output_throughput_tok_s", "energy_per_output_token_j"


def per_user(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model and load with `user_output_tok_s`, `gpu_output_tok_s` and `energy_per_output_token_j`.

    Each has its bounds (`_low`, `_high`) of 95 %; `gpus` and `gpu_name` say of what. Good points only.
    """
    points, _ = offered(table)
    points = points.assign(**{ITL: points[ITL].fillna(points["tpot_mean_ms"])})  # other tools may have that alone
    points = points.assign(
        gpus=points["gpus"].fillna(1).astype(float),
        gpu_name=points["gpu_name"].fillna(points["device"]).fillna("GPU not named").replace("cpu", "CPU"),
    )
    means = per_cap(points, [ITL, OUTPUT, ENERGY], by=("gpu_name", "gpus", "asked"))
    means = means[(means["fate"] == GOOD) & (means[ITL] > 0) & (means[OUTPUT] > 0)].reset_index(drop=True)
    rates = {
        USER: 1e3 / means[ITL],
        f"{USER}_low": 1e3 / means[f"{ITL}_high"],
        f"{USER}_high": 1e3 / means[f"{ITL}_low"],
    }
    rates |= {f"{GPU}{end}": means[f"{OUTPUT}{end}"] / means["gpus"] for end in ("", "_low", "_high")}
    kept = ["model", "gpu_name", "gpus", "batch_cap", "asked", "repeats", "interval_source", "averaging"]
    energy = [f"{ENERGY}{end}" for end in ("", "_low", "_high")]
    return means[kept].assign(**rates, **{name: means[name] for name in energy})
