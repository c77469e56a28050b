"""Continuous batching as an engine does it, without clock and network: the mock server and the twin share it."""
