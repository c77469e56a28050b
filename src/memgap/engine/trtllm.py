"""TensorRT-LLM 1.2, through `trtllm-serve` with its PyTorch backend; from its public sources, and not run here.

It knows no API key, so whoever reaches 127.0.0.1 on the machine can use the server while it runs.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from memgap.engine.base import SCRATCH, EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.failure import kind_in
from memgap.engine.flags import flag
from memgap.engine.held import held
from memgap.engine.openai import OpenaiAdapter
from memgap.engine.prometheus import Page, total

COLUMNS = {
    "num_requests_running": "trtllm_num_requests_running",
    "num_requests_waiting": "trtllm_num_requests_waiting",
    "kv_cache_usage_fraction": "trtllm_kv_cache_utilization",
    "prompt_tokens": "trtllm_prompt_tokens",
    "generation_tokens": "trtllm_generation_tokens",
}
"""1.2.1 has none of them but the cache's; the rest came later."""
OOM = re.compile(r"CUDA out of memory|OutOfMemoryError|out of memory", re.IGNORECASE)
PORT_IN_USE = re.compile(r"Failed to bind socket|Address already in use|Errno 98", re.IGNORECASE)
BAD_CONFIG = re.compile(r"Error: No such option|Error: Invalid value|ValidationError|ValueError: ")
OPTIONS_FILE = "options.yaml"


class TrtllmAdapter(OpenaiAdapter):
    """Starts `trtllm-serve`, which lies beside the interpreter."""

    package = "tensorrt-llm"
    capabilities = Capabilities(serves=True, reports_kv_usage=True, has_histograms=True)
    flags = FlagNames(
        max_seqs="max-batch-size",
        max_model_len="max-seq-len",
        memory_fraction="free-gpu-memory-fraction",
        fraction_is_of_free=True,
        kv_bytes=None,
        reserved=("host", "port", "model", "backend", "tokenizer", "revision", "config", "extra-llm-api-options"),
        max_batched_tokens="max-num-tokens",
        chunked_prefill="enable-chunked-prefill",
        tensor_parallel="tensor-parallel-size",
        pipeline_parallel="pipeline-parallel-size",
        expert_parallel="moe-expert-parallel-size",
        api_servers="num-postprocess-workers",
        aliases={
            "tp-size": "tensor-parallel-size",
            "pp-size": "pipeline-parallel-size",
            "ep-size": "moe-expert-parallel-size",
            "kv-cache-free-gpu-memory-fraction": "free-gpu-memory-fraction",
        },
    )
    ready_path = alive_path = "/health"
    metrics_path = "/prometheus/metrics"
    latency_histograms: Mapping[str, tuple[str, ...]] = {
        "ttft": ("trtllm_time_to_first_token_seconds",),
        "tpot": ("trtllm_time_per_output_token_seconds",),
        "e2e": ("trtllm_e2e_request_latency_seconds",),
        "queue": ("trtllm_request_queue_time_seconds",),
        "prefill": ("trtllm_request_prefill_time_seconds",),
        "decode": ("trtllm_request_decode_time_seconds",),
    }

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter. What has no flag (`kv-cache-config`, `cuda-graph-config`) goes into a file of options,
        as do dummy weights and the switch for the metrics.
        """
        model, args = server["model"], server["server"]["args"]
        command = Path(python).with_name("trtllm-serve") if "/" in python else Path("trtllm-serve")
        argv = [str(command), model_target, "--backend", "pytorch", "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--config", f"{SCRATCH}/{OPTIONS_FILE}"]
        options: dict[str, object] = {"return_perf_metrics": True, "enable_iter_perf_stats": True}
        options["dtype"] = model["dtype"]
        if model["weights"] == "synthetic":
            options["load_format"] = "dummy"
        for name, value in sorted(args.items()):
            if isinstance(value, Mapping):
                options[name.replace("-", "_")] = dict(value)
            elif value is True:
                argv.append(f"--{name.replace('-', '_')}")
            elif value is not False:
                argv += flag(name.replace("-", "_"), value)
        env = {} if model["weights"] == "hub" else {"HF_HUB_OFFLINE": "1"}
        files = {OPTIONS_FILE: yaml.safe_dump(options)}
        return Launch(argv, {**env, **server["server"]["env"]}, files)

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter."""
        found = {column: total(page, name) for column, name in COLUMNS.items()}
        return {column: value for column, value in found.items() if value is not None}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter; what it tells of its cache was not seen, so nothing is taken from it."""
        model = held(server["model"], self.flags, server["server"]["args"])
        return EngineFacts(weights_bytes=model.weights_bytes, weights_bytes_source="architecture")

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter."""
        return True

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        return kind_in(log, {"oom": OOM, "port_in_use": PORT_IN_USE, "bad_config": BAD_CONFIG})
