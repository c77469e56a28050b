"""What engines tell of KV caches that they fetched from another server, by any engine's names for it.

Sources: vLLM's NixlConnector (histograms, of which the sums are exact; the side that fetches has them) and SGLang's
disaggregation.
"""

from collections.abc import Mapping

from memgap.engine.prometheus import Page, rise

SLOW_BYTES_S = 5e9
"""Between two GPUs of one host less than this is a path through the CPU or the network."""
_SUMS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "kv_transfers": (("vllm:nixl_xfer_time_seconds_count", 1.0), ("sglang:kv_transfer_latency_ms_count", 1.0)),
    "kv_transfer_s": (("vllm:nixl_xfer_time_seconds_sum", 1.0), ("sglang:kv_transfer_latency_ms_sum", 1e-3)),
    "kv_transfer_bytes": (("vllm:nixl_bytes_transferred_sum", 1.0), ("sglang:kv_transfer_total_mb_sum", 2.0**20)),
    "kv_transfers_failed": (("vllm:nixl_num_failed_transfers", 1.0), ("sglang:num_transfer_failed_reqs", 1.0)),
}
"""Our name -> the metrics that have it, each with its unit by ours."""


def transfer_summary(before: Page, after: Page) -> dict[str, float]:
    """Return what was fetched between two metrics pages; empty where nothing was.

    `kv_transfers` and `kv_transfers_failed` are numbers, `kv_transfer_bytes` their size in all, `kv_transfer_mean_ms`
    the mean duration of one, `kv_transfer_bytes_s` bytes by the durations added up.
    """
    sums = {name: _change(before, after, metrics) for name, metrics in _SUMS.items()}
    found = {name: value for name, value in sums.items() if value is not None}
    if not found.get("kv_transfers"):
        failed = found.get("kv_transfers_failed")
        return {"kv_transfers_failed": failed} if failed else {}
    lasted_s = found.pop("kv_transfer_s", 0.0)
    if lasted_s > 0:
        found["kv_transfer_mean_ms"] = 1e3 * lasted_s / found["kv_transfers"]
        if "kv_transfer_bytes" in found:
            found["kv_transfer_bytes_s"] = found["kv_transfer_bytes"] / lasted_s
    return found


def _change(before: Page, after: Page, metrics: tuple[tuple[str, float], ...]) -> float | None:
    """Return by how much the first metric that a page has rose, in our unit; None where there is none."""
    rises = ((rise(before, after, name), unit) for name, unit in metrics)
    return next((rose * unit for rose, unit in rises if rose is not None), None)
