"""The twin of a server: simulated continuous batching, its costs calibrated from points that were measured."""
