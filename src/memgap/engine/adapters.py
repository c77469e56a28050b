"""The adapters by name."""

from memgap.engine import capabilities
from memgap.engine.base import EngineAdapter, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.hf import HfAdapter
from memgap.engine.lmdeploy import LmdeployAdapter
from memgap.engine.mock import MockAdapter
from memgap.engine.openai import OpenaiAdapter
from memgap.engine.sglang import SglangAdapter
from memgap.engine.trtllm import TrtllmAdapter
from memgap.engine.vllm import VllmAdapter
from memgap.errors import UserError

ADAPTERS: dict[str, EngineAdapter] = {
    "vllm": VllmAdapter(),
    "mock": MockAdapter(),
    "hf": HfAdapter(),
    "sglang": SglangAdapter(),
    "openai": OpenaiAdapter(),
    "lmdeploy": LmdeployAdapter(),
    "trtllm": TrtllmAdapter(),
}


def adapter_for(name: str) -> EngineAdapter:
    """Return the adapter of that name; raises UserError naming the known ones."""
    if name not in ADAPTERS:
        raise UserError(f"engine adapter {name!r} is unknown; known are {', '.join(sorted(ADAPTERS))}.")
    return ADAPTERS[name]


def table() -> dict[str, Capabilities]:
    """Return what each adapter can do, by its name."""
    return {name: adapter.capabilities for name, adapter in ADAPTERS.items()}


def require(engine: Record, capability: str, wanted: str, where: str) -> None:
    """Raise UserError unless the engine of a point's record can do what `wanted`, at `where`, asks for."""
    capabilities.require(engine["name"], table(), engine["adapter"], capability, wanted, where)
