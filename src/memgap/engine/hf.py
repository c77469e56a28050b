"""Hugging Face transformers: `generate` on static batches, in a worker process; see memgap.kinds.static."""

import re
from collections.abc import Mapping
from pathlib import Path

from memgap.engine.base import EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.failure import kind_in
from memgap.engine.prometheus import Page

OPTIONS: Mapping[str, tuple[type, ...]] = {
    "kv-cache": (str,),
    "max-model-len": (int,),
    "attn-implementation": (str,),
    "threads": (int,),
}
"""What `server` may hold for this engine, with the types."""
KV_CACHES = ("dynamic", "batch", "max-length")
"""`dynamic` grows by a token a step; the others are laid out whole at a batch's start: for its longest request, or for
max-model-len."""
OOM = re.compile(r"out of memory|OutOfMemoryError|std::bad_alloc|can't allocate memory|MemoryError", re.IGNORECASE)
BAD_CONFIG = re.compile(
    r"ModuleNotFoundError|ImportError|does not recognize this architecture|does not support an attention implementation"
    r"|is not a valid model identifier|No such file or directory|ValueError: |OSError: "
)


class HfAdapter:
    """Knows what the static batches' worker says; there is no server, so nothing to launch or to ask."""

    package = "transformers"
    capabilities = Capabilities(static_batches=True, measured="5.17.0")
    flags = FlagNames(
        max_seqs=None, max_model_len="max-model-len", memory_fraction=None, kv_bytes=None, reserved=("dtype", "model")
    )
    ready_path = alive_path = ""
    token_id_endpoints: tuple[str, ...] = ()
    takes_token_ids = True
    metrics_path = "/metrics"
    socket_folder_variable: str | None = None
    latency_histograms: Mapping[str, tuple[str, ...]] = {}
    startup_marks: Mapping[str, str] = {}
    detokenized_field = ""

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter; never called, as the adapter has no server."""
        raise NotImplementedError("transformers run in the worker of static batches")

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter; there is no page."""
        return {}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter; the worker says it."""
        return EngineFacts()

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; there is no such cache."""
        return True

    def profiler_flags(self, folder: Path) -> list[str]:
        """See EngineAdapter."""
        return []

    def profile_request(self, folder: Path) -> bytes:
        """See EngineAdapter."""
        return b""

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter."""
        return False

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        return kind_in(log, {"oom": OOM, "bad_config": BAD_CONFIG})
