"""Steady state and uncertainty of measurements."""
