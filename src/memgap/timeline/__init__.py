"""Kernel timelines: what ran on the GPU when, by replica."""
