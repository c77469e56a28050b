"""The simulated engine of the tests: `python -m memgap.mock_server`, with vLLM's metric names."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from memgap import __version__
from memgap.engine.base import EngineFacts, Launch, Record
from memgap.engine.flags import flag_list
from memgap.engine.vllm import VllmAdapter


class MockAdapter(VllmAdapter):
    """Starts the mock server; what it measures is the simulation and says so in the engine's name."""

    package = "memgap-mock"
    capabilities = replace(VllmAdapter.capabilities, in_process=False, needs_free_share=False, measured="")
    flags = replace(VllmAdapter.flags, reserved_variables=("MEMGAP_MOCK_API_KEY",))
    startup_marks: Mapping[str, str] = {"process": r"^INFO "}
    socket_folder_variable: str | None = None

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter; the mock always runs in this interpreter."""
        argv = [sys.executable, "-m", "memgap.mock_server", "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--model", server["model"]["name"], *flag_list(server["server"]["args"])]
        return Launch(argv, {"MEMGAP_MOCK_API_KEY": api_key, **server["server"]["env"]})

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter."""
        facts = super().facts(base_url, server, log, api_key)
        facts.version = __version__
        return facts

    def profiler_flags(self, folder: Path) -> list[str]:
        """See EngineAdapter."""
        return ["--profile-folder", str(folder)]

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter."""
        return False
