"""Static batches: requests are padded to the longest prompt and all wait for the longest output, as with `generate`."""
