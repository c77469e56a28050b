"""A session: one job that owns one server and measures its points one after another."""
