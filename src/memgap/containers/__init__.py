"""Container images of engines: what identifies one, where jobs find it, what a session inside one needs."""
