"""The table of models in docs/roofline.md is made from the records: `python tests/unit/test_roofline_docs.py`."""

import sys
from pathlib import Path

import yaml

from memgap.markers import between, replaced
from memgap.models import ModelArchitecture
from memgap.models.hf_config import from_hf_config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "roofline.md"
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
HEAD = (
    "| model | layers | attention | parameters | published | difference | KV bytes a token | state a sequence |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def _attention(shape: ModelArchitecture) -> str:
    """Return how many layers attend how: heads/KV heads, latent, windows, or a recurrence."""
    counts: dict[str, int] = {}
    for block in shape.decoder.blocks:
        if block.attention is not None:
            one = block.attention
            name = "latent" if one.latent_width is not None else f"{one.heads}/{one.kv_heads}"
            name += "" if one.window is None else f" in {one.window:,}"
            name += "" if one.sparse_tokens is None else f", {one.sparse_tokens:,} picked"
        elif block.state is not None:
            name = block.state.kind
        else:
            continue
        counts[name] = counts.get(name, 0) + block.count
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{count} x {name}" for name, count in counts.items())


def table() -> str:
    """Return the table of all records."""
    records = yaml.safe_load((ROOT / "tests/unit/data/architectures.yaml").read_text(encoding="utf-8"))
    lines = [HEAD]
    for name, record in records.items():
        shape = from_hf_config(record["config"], name)
        counted, published = shape.parameter_count(), record["parameters"]
        difference = "0" if counted == published else f"{counted / published - 1:+.4%}"
        state = shape.decoder.state_bytes(2)
        lines.append(
            f"| {name} | {shape.layers} | {_attention(shape)} | {counted:,} | {published:,} | {difference} | "
            f"{shape.kv_bytes_per_token('bfloat16'):,} | {f'{state / 1e6:.1f} MB' if state else ''} |"
        )
    return "\n".join(lines)


def test_the_table_of_models_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert between(page, BEGIN, END).strip() == table(), "python tests/unit/test_roofline_docs.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, f"\n{table()}\n"), encoding="utf-8")
    sys.exit(0)
