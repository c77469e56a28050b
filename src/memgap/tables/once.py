"""Functions of a table that many rows or panels ask for again: computed once for the table that they saw last."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

Table = TypeVar("Table")
Result = TypeVar("Result")


def once(function: Callable[[Table], Result]) -> Callable[[Table], Result]:
    """Return the function with a memory of one call; neither its table nor its result may be changed afterwards."""
    kept: list[tuple[Table, Result]] = []

    @wraps(function)
    def remembered(table: Table) -> Result:
        if not kept or kept[0][0] is not table:
            kept[:] = [(table, function(table))]
        return kept[0][1]

    return remembered
