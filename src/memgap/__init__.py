"""memgap: where large-batch LLM inference hits the memory wall, and what to do about it."""

__version__ = "0.1.0"

HARNESS_VERSION = 1
"""Raised deliberately when a measurement changes its meaning: every stored point becomes stale."""
