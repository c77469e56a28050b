"""The scratch studies of the workflow tests."""

from tests.support.studies import study

__all__ = ["study"]
