"""A fake OpenAI-compatible engine with known timing and faults on order.

Run it with `python -m memgap.mock_server --port P --model NAME`.
"""
