"""Which models at which batch caps on which GPUs of a fleet: a mixed-integer program over measured profiles."""
