"""Damaged input of every kind: whatever is read, a user gets one sentence and no traceback."""
