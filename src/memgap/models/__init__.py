"""Models: their shapes, the bytes that follow, the ones known by name, and folders without real weights."""

from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.models.registry import load_registry, resolve_model
from memgap.models.synthetic import write_synthetic_model

__all__ = ["ModelArchitecture", "dtype_bytes", "load_registry", "resolve_model", "write_synthetic_model"]
