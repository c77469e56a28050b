"""Predictions for a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from memgap.errors import UserError
from memgap.roofline.predictions import NEVER, planned_predictions

_SHOWN = {
    "batch": "{:.0f}",
    "step_ms": "{:.3f}",
    "step_lower_bound_ms": "{:.3f}",
    "throughput_tok_s": "{:.0f}",
    "intensity_flop_byte": "{:.1f}",
    "bound": "{}",
    "mbu_fraction": "{:.3f}",
    "mfu_fraction": "{:.3f}",
    "matmul_ms": "{:.3f}",
    "attention_ms": "{:.3f}",
    "communication_ms": "{:.3f}",
    "other_ms": "{:.3f}",
    "fits": "{}",
}


def read_batches(text: str) -> list[int]:
    """Return the batches of a text such as "1,8,32"; raises UserError where it is none."""
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = []
    if not batches or min(batches) < 1:
        raise UserError(f"--batch {text!r} is no list of whole numbers above 0 such as 1,8,32.")
    return batches


def print_predictions(plan: Mapping[str, Any], form: str) -> None:
    """Print the predictions of a plan (see `planned_predictions`) as text, csv or json."""
    table = planned_predictions(plan)
    if form == "csv":
        print(table.to_csv(index=False, float_format="%.9g"), end="")
    elif form == "json":
        print(table.to_json(orient="records", indent=2))
    else:
        blocks = [_block(group) for _, group in table.groupby(["model", "gpu"], sort=False)]
        print("\n\n".join(blocks))


def _block(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    share = "" if first["efficiency_fraction"] == 1 else f", {first['efficiency_fraction']:.0%} of the bandwidth"
    weights = f"{first['weights_bytes'] / 1e9:.2f} GB"
    if first["gpus"] > 1:
        weights += f", {first['weights_bytes_per_gpu'] / 1e9:.2f} GB a GPU"
    if first["active_parameters"] != first["parameters"]:
        weights += f" ({first['parameters'] / 1e9:.1f} billion, {first['active_parameters'] / 1e9:.1f} a token)"
    state = first["state_bytes_per_sequence"]
    lines = [
        f"{first['model']} ({_formats(first)}) on {_gpus(first)}, "
        f"{first['context_tokens']:g} tokens of context{share}: decoding by the roofline, nothing was measured",
        _rows(table),
        f"weights {weights}; the KV cache holds {first['kv_capacity_tokens']:,} tokens, "
        f"{first['largest_batch']:,} sequences of this context; prefill of one such prompt "
        f"{first['prefill_one_prompt_ms']:.2f} ms",
        *([f"a sequence keeps {state / 1e6:.1f} MB of state in layers without attention"] if state else []),
        f"the step leaves the memory roof {_at(first['step_leaves_memory_roof_at_batch'])}; "
        f"its matrix products do {_at(first['matmul_leaves_memory_roof_at_batch'])}",
        _ceiling(first),
        f"peaks: {first['gpu_source']}",
    ]
    if pd.isna(first["communication_ms"]):
        lines.append("the speed of this GPU's links is not known: what goes over them is left out")
    return "\n".join(lines)


def _formats(row: "pd.Series[Any]") -> str:
    own = str(row["dtype"])
    weights = own if row["weight_format"] == own else f"{own}, weights {row['weight_format']}"
    return f"{weights}, KV cache {row['kv_dtype']}"


def _gpus(row: "pd.Series[Any]") -> str:
    if row["gpus"] == 1:
        return str(row["gpu"])
    names = {"tensor_parallel": "tensor", "pipeline_parallel": "pipeline", "data_parallel": "data"}
    parts = [f"{name} {row[column]}" for column, name in names.items() if row[column] > 1]
    parts += ["whole experts"] if row["expert_parallel"] == "yes" else []
    return f"{row['gpus']} x {row['gpu']} ({', '.join(parts)})"


def _rows(table: pd.DataFrame) -> str:
    shown = {name: form for name, form in _SHOWN.items() if name != "communication_ms" or table["gpus"].max() > 1}
    cells = [list(shown), *([form.format(row[name]) for name, form in shown.items()] for _, row in table.iterrows())]
    widths = [max(len(line[place]) for line in cells) for place in range(len(shown))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _at(batch: object) -> str:
    return "at no batch, because attention grows with the batch" if batch == NEVER else f"at batch {batch:g}"


def _ceiling(row: "pd.Series[Any]") -> str:
    if not row["largest_batch"]:
        return "it does not fit: weights and allowance leave no room for one sequence"
    return (
        f"ceiling {row['throughput_at_largest_batch_tok_s']:,.0f} tok/s at batch {row['largest_batch']:,}, "
        f"{row['throughput_limit_tok_s']:,.0f} with memory without end, held by {row['throughput_limited_by']}"
    )
