"""From the configuration's sweeps to points, and from points to sessions."""
