"""From the arguments of a configuration to a point: expansion, resolution of names, record, key."""
