"""Sweeps of servers: the kind of measurement whose points have no `kind` in their record."""
