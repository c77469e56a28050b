"""Columns of a point that follow from what it keeps; None where that does not tell them."""

from collections.abc import Mapping
from typing import Any

from memgap.stats.averaging import value
from memgap.stats.layouts import Lengths, paged
from memgap.tables.enough import enough
from memgap.tables.entries import Entry


def derived(entry: Entry, point: Mapping[str, Any], averaging: str) -> dict[str, float | None]:
    """Return the columns hit_fraction, itl_p99_over_p50 and kv_waste_fraction; see docs/measurement.md."""
    summary = point["summary"]
    median_ms, tail_ms = (value(summary, f"itl_{which}_ms", averaging) for which in ("median", "p99"))
    first = summary.get("choices_completed", summary.get("requests_completed")) or 0.0
    ratio = tail_ms / median_ms if tail_ms is not None and median_ms else None
    return {
        "hit_fraction": hit_fraction(summary),
        "itl_p99_over_p50": ratio if enough((summary.get("output_tokens") or 0.0) - first, 99) else None,
        "kv_waste_fraction": summary.get("kv_waste_fraction")
        or kv_waste_fraction(entry, point["engine"].get("kv_block_tokens")),
    }


def hit_fraction(summary: Mapping[str, float]) -> float | None:
    """Return the share of the prompt tokens in the window whose KV cache was there, in the engine's own or where a
    connector found it. None with the cache off and without counters.

    Where the engine counts prompt tokens by their source, these count: while requests wait for a connector, vLLM counts
    the queries of its own cache again and again.
    """
    queries, hits = summary.get("prefix_cache_queries"), summary.get("prefix_cache_hits")
    sources = [summary.get(f"prompt_tokens_{one}") for one in ("local_hits", "external_hits", "computed")]
    local, external, computed = (one or 0.0 for one in sources)
    if sources[-1] is not None and (queries or external) and (total := local + external + computed):
        return (local + external) / total
    return hits / queries if queries and hits is not None else None


def kv_waste_fraction(entry: Entry, block_tokens: float | None) -> float | None:
    """Return the share of the places of held blocks that no token is in, by the lengths of the completed requests.

    Each request holds its own tokens rounded up to whole blocks, from its first to its last step; that several share
    blocks is not counted, so there is no number for several choices of one prompt. For points that were measured before
    it was kept.
    """
    several = entry.record["load"].get("samples", 1) > 1
    if not block_tokens or several or not (entry.folder / "requests.csv.gz").exists():
        return None
    requests = entry.series("requests")
    done = requests[requests["status"] == "ok"]
    prompts = done["prompt_tokens_server"].fillna(done["prompt_tokens_asked"])
    outputs = done["output_tokens_server"].fillna(done["output_tokens_seen"])
    lengths = [Lengths(int(one), int(other)) for one, other in zip(prompts, outputs, strict=True) if one and other]
    return paged(lengths, int(block_tokens)).wasted_fraction if lengths else None
