"""Any server that speaks OpenAI's HTTP interface and of which nothing else is known: it is measured, never started."""

from collections.abc import Mapping
from pathlib import Path

from memgap.engine.base import EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.prometheus import Page


class OpenaiAdapter:
    """Knows no flag, metric or setting, and guesses none."""

    package = "openai-compatible"
    capabilities = Capabilities()
    flags = FlagNames(max_seqs=None, max_model_len=None, memory_fraction=None, kv_bytes=None, reserved=())
    ready_path = alive_path = "/v1/models"
    token_id_endpoints: tuple[str, ...] = ()
    takes_token_ids = True
    metrics_path = "/metrics"
    socket_folder_variable: str | None = None
    latency_histograms: Mapping[str, tuple[str, ...]] = {}
    startup_marks: Mapping[str, str] = {}
    detokenized_field = ""

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter; never called, as such a server is there already."""
        raise NotImplementedError("a server that is there already is not started")

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter; no metric is known."""
        return {}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter; nothing is known."""
        return EngineFacts()

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; there is no request for it."""
        return False

    def profiler_flags(self, folder: Path) -> list[str]:
        """See EngineAdapter; there are none."""
        return []

    def profile_request(self, folder: Path) -> bytes:
        """See EngineAdapter; there is none."""
        return b""

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter."""
        return False

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter; there is no log."""
        return None
