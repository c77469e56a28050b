"""The roofline against measured serving points of other people: is any below the plain bound, and how far above is it?

    .venv/bin/python benchmarks/silicon_roofline.py ../shared/reference/external/silicon_sample.csv

The file is `silicon_sample.csv` of aiconfigurator 0.12.0 (Apache-2.0): dumps of the public InferenceX database. Of it
the rows of H100 and H200 with one pool of servers are taken. Where the file is not there, this says so and ends with 0.

A row tells how many requests were kept going, not how many decoded at a time. In such a closed loop that is, in the
mean, requests x TPOT x outputs / (TTFT + TPOT x outputs). A decoded token attends to the prompt and half the output.
The type of the KV cache is not told: the bound is taken with 16 bits and, where that is passed, with 8. A row whose
TPOT is lower than that of the same server with half the requests or fewer was not measured under the load it names.
"""

import argparse
import csv
import dataclasses
import functools
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from memgap.models import ModelArchitecture, load_registry
from memgap.models.formats import SHORT
from memgap.models.hf_config import from_hf_config
from memgap.roofline.gpus import find_gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import Setup, lower_bound_s, step_time_s
from memgap.store.atomic import write_text

RECORDS = Path(__file__).parents[1] / "tests" / "unit" / "data" / "architectures.yaml"
GPUS = {"h100_sxm": "H100", "h200_sxm": "H200"}
MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3.5-397B-A17B": "qwen3.5-397b-a17b",
    "deepseek-ai/DeepSeek-R1": "deepseek-v3",
    "deepseek-ai/DeepSeek-V3": "deepseek-v3",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "moonshotai/Kimi-K2.5": "kimi-k2",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "zhipuai/GLM-5": "glm-5",
}
"""The dump's names -> records of the project; MiniMax-M2.5 has the shape of M2, Kimi-K2.5 that of K2."""
BLOCK = dict(SHORT["fp8-block"])
FORMATS: Mapping[str, Mapping[str, Any] | None] = {
    "": None,
    "fp8": SHORT["fp8"],
    "fp8_block": BLOCK,
    "int4": {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp.(gate|up|gate_up|down)_proj.*"],
        "config_groups": {
            "experts": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True},
            }
        },
    },
    "fp4": {"quant_method": "mxfp4"},
}
IN_BLOCKS = ("deepseek", "MiniMax", "GLM", "Qwen3-235B")
"""Checkpoints that are published with an FP8 scale for each block of 128 x 128."""


@functools.cache
def shape_of(model: str, precision: str) -> ModelArchitecture:
    """Return the architecture of a row's model in its format."""
    name = MODELS[model]
    if name in load_registry():
        shape = load_registry()[name].architecture
    else:
        records = yaml.safe_load(RECORDS.read_text(encoding="utf-8"))
        shape = from_hf_config(records[name]["config"], name)
    blocks = precision == "fp8" and any(part in model for part in IN_BLOCKS)
    content = FORMATS["fp8_block" if blocks else precision]
    return dataclasses.replace(shape, quantization=None if content is None else dict(content))


def spread_of(row: Mapping[str, str]) -> Parallel:
    """Return how a row's server was spread: some rows of the dump hold the square of the number in their name."""

    def size(column: str) -> int:
        return max(int(float(row[column] or 1)), 1)

    tensor, data = size("tp_size"), size("attention_dp_size")
    experts, whole = size("moe_tp_size") * size("moe_ep_size"), size("moe_ep_size") > 1
    said = re.search(r"_tp(\d+)_", row["id"])
    named = int(said[1]) if said else tensor
    if named > 1 and tensor * data == named * named:
        return Parallel(1 if data > 1 else named, 1, named if data > 1 else 1, whole)
    gpus = max(tensor * data, experts)
    return Parallel(tensor, size("pp_size"), max(gpus // tensor, 1), whole)


def compared(rows: Iterator[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield each row's step beside what the roofline says of it."""
    for row in rows:
        if row["system"] not in GPUS or row["mode"] != "agg":
            continue
        shape, gpu = shape_of(row["model_path"], row["precision"]), find_gpu(GPUS[row["system"]])
        prompt, output = float(row["isl"]), float(row["osl"])
        ttft_ms, tpot_ms = float(row["silicon_ttft_ms"]), float(row["silicon_tpot_ms"])
        told = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
        spread = spread_of(row)
        requests = float(told[1]) if told else float(row["batch_size"])
        batch = max(requests * tpot_ms * output / (ttft_ms + tpot_ms * output), 1.0)
        found: dict[str, Any] = {
            "id": row["id"],
            "model": row["model_path"].split("/")[1],
            "format": row["precision"] or "16-bit",
            "gpu": GPUS[row["system"]],
            "engine": row["backend"],
            "gpus": spread.gpus,
            "told": told is not None,
            "requests": requests,
            "curve": "|".join((row["id"].split("_c")[0], re.sub(r"^.*?_tp", "tp", row["id"]).rsplit("_", 1)[0])),
            "batch": batch,
            "tpot_ms": tpot_ms,
        }
        for bits, cache in ((16, None), (8, "fp8")):
            setup = Setup(shape, gpu, "bfloat16", cache, parallel=spread)
            kernels = setup.decode(batch, prompt + output / 2)
            found[f"bound_{bits}_ms"] = 1000 * lower_bound_s(setup, kernels)
            found[f"step_{bits}_ms"] = 1000 * step_time_s(setup, kernels)
        yield found


def falls(row: "pd.Series[Any]", rows: pd.DataFrame) -> bool:
    """Tell whether the same server had a longer TPOT with half the requests or fewer."""
    same = rows[(rows["curve"] == row["curve"]) & (rows["requests"] <= row["requests"] / 2)]
    return bool((same["tpot_ms"] > 1.1 * row["tpot_ms"]).any())


def table_of(rows: pd.DataFrame) -> str:
    """Return the factors by model, format and engine as Markdown."""
    lines = [
        "| model, format | engine | rows | GPUs a server | measured / predicted: median (10th to 90th percentile) | "
        "least measured / plain bound | below with a 16-bit cache, with 8 bits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, form, engine), group in rows.groupby(["model", "format", "engine"]):
        ratio = group["tpot_ms"] / group["step_16_ms"]
        least = (group["tpot_ms"] / group["bound_16_ms"]).min()
        gpus = sorted(group["gpus"].unique())
        counts = f"{gpus[0]}" if len(gpus) == 1 else f"{gpus[0]} to {gpus[-1]}"
        below = [int((group["tpot_ms"] < group[f"bound_{bits}_ms"]).sum()) for bits in (16, 8)]
        lines.append(
            f"| {model}, {form} | {engine} | {len(group)} | {counts} | {ratio.median():.2f} "
            f"({ratio.quantile(0.1):.2f} to {ratio.quantile(0.9):.2f}) | {least:.2f} | {below[0]}, {below[1]} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and name every row below the plain bound; 1 where one is so without one of the reasons above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--csv", type=Path, help="write each row here")
    options = parser.parse_args(arguments)
    if not options.file.exists():
        print(f"SKIPPED: {options.file} is not there; nothing was compared", file=sys.stderr)
        return 0
    with options.file.open(encoding="utf-8", newline="") as file:
        rows = pd.DataFrame(compared(csv.DictReader(file)))
    if options.csv:
        write_text(options.csv, rows.to_csv(index=False))
    rows["falls"] = [falls(row, rows) for _, row in rows.iterrows()]
    print(table_of(rows))
    ratio, bound = rows["tpot_ms"] / rows["step_16_ms"], rows["tpot_ms"] / rows["bound_16_ms"]
    print(f"\n{len(rows)} rows: measured / predicted median {ratio.median():.2f}, 10th to 90th percentile ", end="")
    print(f"{ratio.quantile(0.1):.2f} to {ratio.quantile(0.9):.2f}")
    for _, row in rows[bound < 1].iterrows():
        eight = row["tpot_ms"] / row["bound_8_ms"]
        told = "" if row["told"] else ", the number of requests is not told"
        told += ", and the same server took longer with fewer requests" if row["falls"] else ""
        print(
            f"below: {row['id']}: {row['tpot_ms']:.2f} ms, {row['tpot_ms'] / row['bound_16_ms']:.2f} of the bound",
            end="",
        )
        print(f" with a 16-bit cache, {eight:.2f} with 8 bits, {row['batch']:.0f} decoding{told}")
    return int(((rows["tpot_ms"] < rows["bound_8_ms"]) & ~rows["falls"]).any())


if __name__ == "__main__":
    sys.exit(main())
