"""The offline study: a batch of fixed size in an engine in process, all prefill first, then all decode."""
