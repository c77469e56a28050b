"""Weights and KV cache as predicted against what the engine logged on a GPU, for every recorded shape.

The table in docs/roofline.md is made from the same points: `python tests/unit/test_roofline_shapes.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memgap.engine.held import held_of
from memgap.markers import between, replaced
from memgap.recorded.files import all_points
from memgap.roofline.gpus import gpu_of_hardware
from memgap.roofline.predict import Setup, kv_capacity_tokens

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "roofline.md"
BEGIN, END = "<!-- shapes: begin -->", "<!-- shapes: end -->"
FOLDERS = tuple(sorted((ROOT / "recorded").glob("*-shapes")))
WITHIN = 0.03
HEAD = (
    "| shape | card | weights: predicted, bytes | logged | ratio | KV cache: predicted, tokens | logged | ratio |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)
PHASES = ["process", "import", "weights", "compile", "capture", "ready"]


class Compared(NamedTuple):
    """One server: what the roofline predicts from the record, and what the engine said."""

    shape: str
    card: str
    weights_bytes: int
    logged_weights_bytes: int
    pool_tokens: int
    logged_pool_tokens: int


def compare(point: Mapping[str, Any]) -> Compared:
    record, engine = point["record"], point["engine"]
    flags, model, gpu = record["server"]["args"], held_of(record), gpu_of_hardware(point["hardware"])
    assert gpu is not None
    assert engine["weights_bytes_source"] == "log"
    gpus = flags.get("tensor-parallel-size", 1)
    setup = Setup(
        architecture=model.architecture,
        gpu=gpu,
        dtype=model.dtype,
        kv_dtype=model.kv_dtype,
        gpus=gpus,
        utilization=flags["gpu-memory-utilization"],
    )
    name = record["model"]["name"]
    name += ", FP8 cache" if flags.get("kv-cache-dtype") == "fp8" else ""
    name += f", {gpus} GPUs" if gpus > 1 else ""
    return Compared(
        shape=name,
        card=gpu.name,
        weights_bytes=model.weights_bytes,
        logged_weights_bytes=engine["weights_bytes"],
        pool_tokens=kv_capacity_tokens(setup),
        logged_pool_tokens=engine["kv_pool_tokens"],
    )


def compared() -> list[Compared]:
    return sorted({compare(point) for folder in FOLDERS for point in all_points(folder)})


def table() -> str:
    lines = [HEAD]
    for one in compared():
        weights, pool = one.weights_bytes / one.logged_weights_bytes, one.pool_tokens / one.logged_pool_tokens
        lines.append(
            f"| {one.shape} | {one.card} | {one.weights_bytes:,} | {one.logged_weights_bytes:,} | {weights:.3f} | "
            f"{one.pool_tokens:,} | {one.logged_pool_tokens:,} | {pool:.3f} |"
        )
    return "\n".join(lines)


def test_every_shape_of_the_configuration_is_recorded() -> None:
    assert {one.shape for one in compared() if one.card == "NVIDIA H200"} == {
        "llama-3.1-8b, 2 GPUs",
        "llama-3.1-8b, FP8 cache",
        "llama-3.1-8b-awq",
        "llama-3.1-8b-fp8",
        "llama-3.1-8b-gptq",
        "mixtral-16-layers",
        "opt-1.3b",
        "qwen3-30b-a3b",
    }


@pytest.mark.parametrize("one", compared(), ids=lambda one: f"{one.card}: {one.shape}")
def test_weights_and_cache_are_within_three_percent_of_the_log(one: Compared) -> None:
    assert one.weights_bytes == pytest.approx(one.logged_weights_bytes, rel=WITHIN)
    assert one.pool_tokens == pytest.approx(one.logged_pool_tokens, rel=WITHIN)


def test_both_starts_on_the_gpu_have_every_phase() -> None:
    (point,) = [one for one in all_points(ROOT / "recorded/h200-shapes") if one["record"].get("kind") == "restart"]
    for start in point["starts"]:
        assert [one["phase"] for one in start["phases"]] == PHASES
        assert sum(one["duration_s"] for one in start["phases"]) == pytest.approx(start["start_s"], rel=0.05)


def test_the_table_of_shapes_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert between(page, BEGIN, END).strip() == table(), "python tests/unit/test_roofline_shapes.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{table()}\n"), encoding="utf-8")
