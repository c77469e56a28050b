"""The adapters by name."""

from memgap.engine.base import EngineAdapter
from memgap.engine.mock import MockAdapter
from memgap.engine.vllm import VllmAdapter
from memgap.errors import UserError

ADAPTERS: dict[str, EngineAdapter] = {"vllm": VllmAdapter(), "mock": MockAdapter()}


def adapter_for(name: str) -> EngineAdapter:
    """Return the adapter of that name; raises UserError naming the known ones."""
    if name not in ADAPTERS:
        raise UserError(f"engine adapter {name!r} is unknown; known are {', '.join(sorted(ADAPTERS))}.")
    return ADAPTERS[name]
