"""Load tests: Locust as a second, independent client beside the load generator, on the same server in one session."""
