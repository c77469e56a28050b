"""What holds for all tests: they can be interrupted, and so can the programs they start."""

import signal

import pytest

pytest.register_assert_rewrite("tests.support")

# a shell lets what it starts with `&` ignore SIGINT, and every program started from there would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
