"""What several test modules use: made-up studies, sessions, servers and recordings, one theme a module."""
