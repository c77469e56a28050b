"""Installs the inference engine beside the workflow."""
