"""The tuner: which server configuration is the fastest, by races that end in a winner with a confidence statement."""
