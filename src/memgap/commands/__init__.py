"""What `memgap COMMAND` does, one module a command."""
