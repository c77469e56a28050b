"""Static batches against continuous batching: KV memory that is wasted, memory over time, and both in tables."""
