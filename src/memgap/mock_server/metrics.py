"""The /metrics page, with the names and labels of vLLM."""

import math
from collections.abc import Collection

from memgap.mock_server.latencies import Latencies
from memgap.mock_server.options import Options
from memgap.scheduling.scheduler import Scheduler


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


KV_BYTES_PER_TOKEN, TRANSFER_BYTES_S = 1000, 1e8
"""Of KV caches fetched from another server."""


def metrics_page(
    scheduler: Scheduler, latencies: Latencies, options: Options, number: int = 0, transfers: Collection[int] = ()
) -> bytes:
    """Return the state of the engine in Prometheus' text format 0.0.4; `number` counts the pages before this one,
    `transfers` are the prompt tokens of each KV cache that was fetched from another server.
    """
    labels = f'engine="0",model_name="{_escape(options.public_name)}"'
    counters = scheduler.counters
    odd = options.faults.odd_metrics_every > 0 and (number + 1) % options.faults.odd_metrics_every == 0
    lines: list[str] = ['vllm:cut_off{a="b" 1'] if odd else []

    def add(name: str, kind: str, text: str, value: float) -> None:
        lines.extend((f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"))
        lines.append(f"vllm:{name}{{{labels}}} {float(value)}")

    add("num_requests_running", "gauge", "Sequences in the batch.", math.nan if odd else len(scheduler.running))
    add("num_requests_waiting", "gauge", "Sequences in the queue.", len(scheduler.waiting))
    add(
        "kv_cache_usage_perc",
        "gauge",
        "Share of the KV blocks in use, 0 to 1.",
        math.nan if odd else scheduler.kv_usage,
    )
    faults = options.faults
    hit_share = faults.prefix_hit_share + faults.kept_cache_share
    looked_up = counters.prompt_tokens if hit_share else 0
    hits = looked_up * hit_share
    add("prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", looked_up)
    add("prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", hits)
    add("num_preemptions_total", "counter", "Sequences evicted from the batch.", counters.preemptions)
    generated = counters.generation_tokens * (1 - faults.lost_count_share)
    add("prompt_tokens_total", "counter", "Prompt tokens computed.", counters.prompt_tokens)
    add("generation_tokens_total", "counter", "Output tokens generated.", generated)
    if transfers:
        fetched = sum(transfers) * KV_BYTES_PER_TOKEN
        for what, value in (("xfer_time_seconds", fetched / TRANSFER_BYTES_S), ("bytes_transferred", fetched)):
            lines.append(f"# TYPE vllm:nixl_{what} histogram")
            lines.append(f"vllm:nixl_{what}_sum{{{labels}}} {float(value)}")
            lines.append(f"vllm:nixl_{what}_count{{{labels}}} {float(len(transfers))}")
        add("nixl_num_failed_transfers_total", "counter", "Transfers that failed.", 0)
    name = "vllm:request_success_total"
    lines.extend((f"# HELP {name} Requests ended, by reason.", f"# TYPE {name} counter"))
    for reason, count in counters.finished.items():
        lines.append(f'{name}{{{labels},finished_reason="{reason}"}} {float(count)}')
    lines += latencies.lines(labels)
    config = {
        "block_size": options.block_size,
        "cache_dtype": "auto",
        "enable_prefix_caching": False,
        "engine": 0,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_size_tokens": options.num_blocks * options.block_size,
        "num_cpu_blocks": None,
        "num_gpu_blocks": options.num_blocks,
        "num_gpu_blocks_override": None,
    }
    name = "vllm:cache_config_info"
    lines.extend((f"# HELP {name} Settings of the KV cache.", f"# TYPE {name} gauge"))
    lines.append(name + "{" + ",".join(f'{key}="{value}"' for key, value in config.items()) + "} 1.0")
    return ("\n".join(lines) + "\n").encode()
