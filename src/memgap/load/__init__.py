"""The load generator: sends requests to OpenAI-compatible servers and times the tokens that come back."""
