"""SGLang 0.5, through its OpenAI-compatible server: run with 0.5.17, names of 0.5.23 from its sources."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.engine.base import SCRATCH, EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.failure import kind_in
from memgap.engine.flags import flag_list, without_false
from memgap.engine.held import held
from memgap.engine.prometheus import Page, parse_page
from memgap.engine.ranks import Sizes, logged, together, usage_of_engines
from memgap.loopback import fetch

GAUGES = {
    "num_requests_running": "sglang:num_running_reqs",
    "num_requests_waiting": "sglang:num_queue_reqs",
}
COUNTERS = {
    "num_preemptions": "sglang:num_retracted_requests_total",
    "prompt_tokens": "sglang:prompt_tokens_total",
    "generation_tokens": "sglang:generation_tokens_total",
    "prefix_cache_queries": "sglang:prompt_tokens_total",
    "prefix_cache_hits": "sglang:cached_tokens_total",
}
"""SGLang adds a request's tokens when it has finished, not as they come. Every prompt asks the radix cache."""
AT_FIRST = ("num_preemptions", "prefix_cache_hits")
"""Counters that are not on the page before they first rise."""
DECODED = "sglang:realtime_tokens_total"
"""Rises with every step, those of health checks included; `mode` says what the tokens were."""
KV_USAGE = ("sglang:full_token_usage", "sglang:token_usage")
"""The second is rounded to 0.01, and is all that some caches have."""
LATENCY_HISTOGRAMS = {
    "ttft": ("sglang:time_to_first_token_seconds",),
    "itl": ("sglang:inter_token_latency_seconds",),
    "tpot": ("sglang:request_time_per_output_token_seconds",),
    "e2e": ("sglang:e2e_request_latency_seconds",),
    "queue": ("sglang:queue_time_seconds",),
}
OOM = re.compile(
    r"CUDA out of memory|OutOfMemoryError|Not enough memory\. Please try to increase --mem-fraction-static"
    r"|leave no GPU memory for the KV cache|Out of memory even after retracting|alloc_req_slots runs out of memory"
    r"|out of memory\. Try to lower your batch size"
    r"|std::bad_alloc|DefaultCPUAllocator: can't allocate memory",
    re.IGNORECASE,
)
PORT_IN_USE = re.compile(r"Address already in use|Errno 98|EADDRINUSE|Port is already in use", re.IGNORECASE)
BAD_CONFIG = re.compile(
    r"error: unrecognized arguments|error: argument |error: ambiguous option"
    r"|error: the following arguments are required|AssertionError|ValueError: "
)
WEIGHTS_GIB = re.compile(r"Load weight end\..*mem usage=([0-9.]+) GB")
POOL_TOKENS = re.compile(r"max_total_num_tokens=(\d+)")
CONTEXT = re.compile(r"context_len=(\d+)")
RANK = re.compile(r"^\[[^\]]*?((?: [A-Z]+\d+)+)\]")
"""The rank that a line of the log is from, such as DP0 TP1; a server on one GPU leaves it out."""
ENGINE = re.compile(r"^\[[^\]]*\b(DP\d+)\b[^\]]*\]")
STARTUP_MARKS = {
    "process": r"server_args=ServerArgs",
    "import": r"Init torch distributed ends",
    "weights": r"Load weight end",
    "capture": r"Capture target decode CUDA graph end",
}
"""SGLang 0.5.17."""
HEALTH_VARIABLE = "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"
CONFIG_FILE = "server.yaml"
RESOLVED = (
    *("dtype", "kv_cache_dtype", "context_length", "mem_fraction_static", "max_running_requests", "max_total_tokens"),
    *("chunked_prefill_size", "max_prefill_tokens", "page_size", "schedule_policy", "attention_backend"),
    *("sampling_backend", "disable_radix_cache", "disable_overlap_schedule", "tp_size", "dp_size", "pp_size"),
    *("quantization", "random_seed", "stream_interval", "tokenizer_worker_num", "device"),
)
"""What is kept of /server_info: it also holds the command line, and with it the API key."""


class SglangAdapter:
    """Starts `python -m sglang.launch_server` and reads SGLang's metric names."""

    package = "sglang"
    capabilities = Capabilities(
        serves=True,
        shares_memory=True,
        sizes_kv_cache=True,
        resets_prefix_cache=True,
        profiles=True,
        detokenizes=True,
        reports_kv_usage=True,
        reports_settings=True,
        has_histograms=True,
        is_advised=True,
        measured="0.5.17",
    )
    flags = FlagNames(
        max_seqs="max-running-requests",
        max_model_len="context-length",
        memory_fraction="mem-fraction-static",
        fraction_is_of_free=True,
        kv_bytes=None,
        reserved=(
            *("host", "port", "model-path", "model", "api-key", "admin-api-key", "served-model-name", "load-format"),
            *("revision", "dtype", "tokenizer-path", "enable-metrics", "config"),
        ),
        kv_tokens="max-total-tokens",
        block_tokens="page-size",
        max_batched_tokens="chunked-prefill-size",
        tensor_parallel="tensor-parallel-size",
        pipeline_parallel="pipeline-parallel-size",
        data_parallel="data-parallel-size",
        data_parallel_attention="enable-dp-attention",
        first_gpu="base-gpu-id",
        gpu_step="gpu-id-step",
        expert_parallel="expert-parallel-size",
        api_servers="tokenizer-worker-num",
        kv_dtype="kv-cache-dtype",
        quantization="quantization",
        eager="disable-cuda-graph",
        command="python -m sglang.launch_server --model-path MODEL",
        aliases={
            "tp-size": "tensor-parallel-size",
            "tp": "tensor-parallel-size",
            "pp-size": "pipeline-parallel-size",
            "dp-size": "data-parallel-size",
            "dp": "data-parallel-size",
            "ep-size": "expert-parallel-size",
            "ep": "expert-parallel-size",
        },
        told={
            "tensor_parallel": ("server_args", "tp_size"),
            "pipeline_parallel": ("server_args", "pp_size"),
            "data_parallel": ("server_args", "dp_size"),
            "max_seqs": ("server_args", "effective_max_running_requests_per_dp"),
            "max_batched_tokens": ("server_args", "chunked_prefill_size"),
            "memory_fraction": ("server_args", "mem_fraction_static"),
            "block_tokens": ("server_args", "page_size"),
            "kv_dtype": ("server_args", "kv_cache_dtype"),
            "prefix_caching": ("server_args", "disable_radix_cache"),
            "graphs": ("server_args", "cuda_graph_decode_max_bs"),
            "async_scheduling": ("server_args", "disable_overlap_schedule"),
            "api_servers": ("server_args", "tokenizer_worker_num"),
            "attention": ("server_args", "attention_backend"),
        },
        told_inverted=("prefix_caching", "async_scheduling"),
    )
    ready_path = "/health"
    alive_path = "/health_generate"
    token_id_endpoints: tuple[str, ...] = ("completions",)
    """A streaming chat that asks for them gets 400."""
    takes_token_ids = True
    metrics_path = "/metrics"
    socket_folder_variable: str | None = None
    latency_histograms: Mapping[str, tuple[str, ...]] = LATENCY_HISTOGRAMS
    startup_marks: Mapping[str, str] = STARTUP_MARKS
    detokenized_field = "text"

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter. SGLang takes its key from no variable, but from a file of options as well as from a flag:
        so no process list shows it.
        """
        model = server["model"]
        argv = [python, "-m", "sglang.launch_server", "--config", f"{SCRATCH}/{CONFIG_FILE}"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--enable-metrics"]
        argv += ["--model-path", model_target, "--served-model-name", model["name"], "--dtype", model["dtype"]]
        if model["weights"] == "synthetic":
            argv += ["--load-format", "dummy"]
        if model["weights"] == "hub" and model.get("revision"):
            argv += ["--revision", model["revision"]]
        argv += flag_list(without_false(server["server"]["args"]))
        # else each look at /health runs a token, which takes 1.0 s
        env = {"DO_NOT_TRACK": "1", HEALTH_VARIABLE: "false"}
        if model["weights"] != "hub":
            env["HF_HUB_OFFLINE"] = "1"
        files = {CONFIG_FILE: f"api-key: {json.dumps(api_key)}\n"}
        return Launch(argv, {**env, **server["server"]["env"]}, files)

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter; data-parallel engines are summed."""
        found = {column: _total(page, name) for column, name in {**GAUGES, **COUNTERS}.items()}
        usage = next((rows for name in KV_USAGE if (rows := _rows(page, name))), [])
        found.update(usage_of_engines([value for _, value in usage]))
        if found["num_requests_running"] is not None:
            found |= {name: 0.0 for name in AT_FIRST if found[name] is None}
        if decoded := [value for labels, value in _rows(page, DECODED) if labels.get("mode") == "decode"]:
            found["decoded_tokens"] = sum(decoded)
        return {column: value for column, value in found.items() if value is not None}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter. The pool comes from the metrics, else the log; settings from /server_info."""
        info = _json(_get(base_url, "/server_info", api_key))
        page = _page(base_url)
        version = info.get("version")
        facts = EngineFacts(version=version if isinstance(version, str) else None)
        sizes = Sizes.of(self.flags, server["server"]["args"])
        facts.resolved = {"server_args": {name: info[name] for name in RESOLVED if _plain(info.get(name))}}
        facts.resolved["server_args"] |= _found_at_start(info)
        facts.kv_block_tokens = _whole(next((value for _, value in _rows(page, "sglang:page_size")), None))
        facts.kv_pool_tokens = _whole(_total(page, "sglang:max_total_num_tokens"))
        if facts.kv_pool_tokens is None:
            facts.kv_pool_tokens = _whole(together(logged(log, POOL_TOKENS, ENGINE, sizes.engines), sizes.engines))
        if facts.kv_pool_tokens and facts.kv_block_tokens:
            facts.num_gpu_blocks = facts.kv_pool_tokens // facts.kv_block_tokens
        model = held(server["model"], self.flags, server["server"]["args"], info.get("kv_cache_dtype"))
        facts.kv_pool_bytes = model.pool_bytes(facts.kv_pool_tokens, sizes.tensor)
        if isinstance(fraction := info.get("mem_fraction_static"), float):
            facts.gpu_memory_utilization = fraction
        facts.max_model_len = _whole(next((value for _, value in _rows(page, "sglang:context_len")), None))
        if facts.max_model_len is None and (said := CONTEXT.search(log)):
            facts.max_model_len = int(said[1])
        even = sizes.pipeline == 1
        if loaded := together(logged(log, WEIGHTS_GIB, RANK, sizes.ranks), sizes.ranks, even):
            facts.weights_bytes, facts.weights_bytes_source = round(loaded * 2**30), "log"
        else:
            facts.weights_bytes = sizes.engines * model.weights_bytes
            facts.weights_bytes_source = "architecture"
        graphs: dict[tuple[str, tuple[int, int]], float] = {}
        for labels, gib in page.get("sglang:graph_memory_usage_gb", []):  # one a phase and rank
            rank = (labels.get("dp_rank", ""), _rank(labels))
            graphs[rank] = graphs.get(rank, 0.0) + gib
        if (held_gib := together(list(graphs.values()), sizes.ranks)) is not None:
            facts.graph_memory_bytes = round(held_gib * 2**30)
        return facts

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; SGLang refuses while requests run or wait, after the seconds that it is told to wait."""
        try:
            return fetch(f"{base_url}/flush_cache?timeout=5", 10, body=b"", headers=_key(api_key))[0] == 200
        except OSError:
            return False

    def profiler_flags(self, folder: Path) -> list[str]:
        """See EngineAdapter; the folder stands in the request."""
        return []

    def profile_request(self, folder: Path) -> bytes:
        """See EngineAdapter."""
        return json.dumps({"output_dir": str(folder), "activities": ["GPU"], "with_stack": False}).encode()

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter; a pool of given tokens is not measured."""
        return "max-total-tokens" not in server["server"]["args"]

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        return kind_in(log, {"oom": OOM, "port_in_use": PORT_IN_USE, "bad_config": BAD_CONFIG})


def _found_at_start(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what SGLang finds out while it starts: the seats that memory leaves, the greatest graph of each phase."""
    states = info.get("internal_states") or [{}]
    graphs = info.get("cuda_graph_config") or {}
    found = {name: states[0].get(name) for name in ("effective_max_running_requests_per_dp",)}
    for phase in ("prefill", "decode"):
        for name in ("backend", "max_bs"):
            found[f"cuda_graph_{phase}_{name}"] = (graphs.get(phase) or {}).get(name)
    return {name: value for name, value in found.items() if _plain(value)}


def _page(base_url: str) -> Page:
    """Return the metrics page; empty where there is none that can be read."""
    try:
        return parse_page(_get(base_url, "/metrics") or "")
    except ValueError:
        return {}


def _rows(page: Page, name: str) -> list[tuple[dict[str, str], float]]:
    """Return a metric's samples of each data-parallel engine's first rank, without those that split a sum by priority.

    An engine's further tensor- and pipeline-parallel ranks repeat what the first one says; where engines share a
    tensor-parallel group, the first rank of an engine is not number 0.
    """
    rows = [(labels, value) for labels, value in page.get(name, []) if not labels.get("priority")]
    first: dict[str, tuple[int, int]] = {}
    for labels, _ in rows:
        engine = labels.get("dp_rank", "")
        first[engine] = min(first.get(engine, _rank(labels)), _rank(labels))
    return [(labels, value) for labels, value in rows if _rank(labels) == first[labels.get("dp_rank", "")]]


def _rank(labels: Mapping[str, str]) -> tuple[int, int]:
    pipeline, tensor = (labels.get(name, "0") for name in ("pp_rank", "tp_rank"))
    return int(pipeline) if pipeline.isdigit() else 0, int(tensor) if tensor.isdigit() else 0


def _total(page: Page, name: str) -> float | None:
    rows = _rows(page, name)
    return sum(value for _, value in rows) if rows else None


def _key(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _get(base_url: str, path: str, api_key: str = "") -> str | None:
    try:
        return fetch(f"{base_url}{path}", 10, headers=_key(api_key))[1].decode("utf-8", "replace")
    except OSError:
        return None


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


def _whole(value: float | None) -> int | None:
    return round(value) if value and math.isfinite(value) else None
