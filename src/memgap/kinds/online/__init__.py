"""Points of sweeps: a load on a server that is started for them."""
