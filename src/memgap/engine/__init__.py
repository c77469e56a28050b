"""Inference engines: which is installed, how its server is launched, watched, asked and stopped."""
