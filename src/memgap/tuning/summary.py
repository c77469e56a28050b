"""A row a model that says what won: the default, the winner of each tier, and what it gains in all."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from memgap.engine.flags import flag_list
from memgap.tuning.candidates import deviations
from memgap.tuning.outcome import Outcome
from memgap.tuning.plan import Plan


def optimization_summary(plan: Plan, outcomes: Sequence[Outcome], table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each model and dataset: the default, what won in each tier, and what it gains in all.

    `table` is that of `configuration_rows`. A tier's speed-up is over the default by the means of its own blocks; its
    gain with bounds is over the winner before it, paired by block.
    """
    rows = []
    for model, dataset in plan["subjects"]:
        mine = [one for one in outcomes if (one["model"], one["dataset"]) == (model, dataset)]
        if mine:
            rows.append(_summary_row(model, dataset, mine, table))
    return pd.DataFrame(rows)


def _summary_row(model: str, dataset: str, outcomes: Sequence[Outcome], table: pd.DataFrame) -> dict[str, Any]:
    own = table[(table["model"] == model) & (table["prompt_template_name"] == dataset)]
    default = own[own["is_default"].fillna(False).astype(bool)]
    first = default[default["tier"] == outcomes[0]["tier"]]
    base = first.iloc[0] if len(first) else None
    base_tps = None if base is None else base["output_tps_per_gpu"]
    row: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "objective": outcomes[0]["objective"],
        "baseline_tp": None if base is None else base["tp"],
        "baseline_tps": base_tps,
    }
    overall = 1.0
    for number, outcome in enumerate(outcomes):
        arm = _winner(outcome)
        won = own[(own["tier"] == outcome["tier"]) & (own["state"] == "winner")]
        tps = won.iloc[0]["output_tps_per_gpu"] if len(won) else None
        beside = default[default["tier"] == outcome["tier"]]
        base_here = beside.iloc[0]["output_tps_per_gpu"] if len(beside) else None
        gain = (arm or {}).get("gain_fraction")
        moved = arm is not None and not arm["is_reference"]
        if base_here and tps:
            overall = tps / base_here
        elif moved and gain is not None and outcome["objective"] == "output_tps_per_gpu":
            overall *= 1 + gain
        row |= {
            f"tier{number}_name": outcome["tier"],
            f"tier{number}_tps": tps,
            f"tier{number}_speedup": overall if tps else None,
            f"tier{number}_params": _params(outcome),
            f"tier{number}_gain": gain if moved else 0.0,
            f"tier{number}_gain_low": arm["gain_low_fraction"] if arm is not None and moved else None,
            f"tier{number}_gain_high": arm["gain_high_fraction"] if arm is not None and moved else None,
            f"tier{number}_statement": outcome["statement"],
        }
    last = _winner(outcomes[-1])
    won = own[(own["tier"] == outcomes[-1]["tier"]) & (own["state"] == "winner")]
    final = won.iloc[0] if len(won) else None
    row |= {
        "overall_tps": None if final is None else final["output_tps_per_gpu"],
        "overall_speedup": overall if final is not None else None,
        "overall_params": _params(outcomes[-1]),
        "overall_server_args": None if last is None else " ".join(flag_list(last["server_args"])),
        "confidence": 1 - sum(one["false_winner_rate"] for one in outcomes),
        "tied_with": "; ".join(arm["label"] for arm in outcomes[-1]["arms"] if arm["name"] in outcomes[-1]["tied"]),
        "blocks": sum(one["blocks"] for one in outcomes),
        "gpu_minutes": outcomes[-1]["spent_gpu_s"] / 60,
    }
    columns = (
        *("ttft_mean_ms", "tpot_mean_ms", "itl_p99_ms", "e2e_mean_ms", "energy_per_output_token_j"),
        *("gpu_days_to_process_1b_tokens", "gpus_for_1b_tokens_per_hour"),
        *("usd_per_million_output_tokens", "usd_per_million_tokens"),
    )
    for name in columns:
        row[f"baseline_{name}"] = None if base is None else base[name]
        row[f"overall_{name}"] = None if final is None else final[name]
    return row


def _winner(outcome: Outcome) -> dict[str, Any] | None:
    return next((arm for arm in outcome["arms"] if arm["state"] == "winner"), None)


def _params(outcome: Outcome) -> str:
    """Return how the winner so far differs from the default."""
    if outcome["winner"] is None:
        return ""
    changed = deviations(outcome["winner"]["arguments"], outcome["default"]["arguments"])
    return ", ".join(changed) if changed else "(baseline is optimal)"
