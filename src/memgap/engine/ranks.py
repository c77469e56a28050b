"""Facts that each rank of a server logs or publishes for itself, put together: ranks are the processes on one GPU each.

A server has tensor x pipeline x context x data-parallel ranks; each data-parallel engine has a KV cache and requests of
its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgap.engine.base import FlagNames


@dataclass(frozen=True)
class Sizes:
    """How a server is spread over GPUs, by its flags; what is no whole number counts as 1."""

    tensor: int = 1
    pipeline: int = 1
    engines: int = 1
    context: int = 1

    @classmethod
    def of(cls, names: FlagNames, arguments: Mapping[str, Any]) -> "Sizes":
        """Return the sizes that the flags of a server give, by an engine's names for them."""
        hyphened = {one.replace("_", "-"): value for one, value in arguments.items()}
        given = {names.aliases.get(one, one): value for one, value in hyphened.items()}

        def size(name: str | None) -> int:
            text = str(given.get(name, 1)) if name is not None else "1"
            return max(int(text), 1) if text.isdigit() else 1

        tensor, engines = size(names.tensor_parallel), size(names.data_parallel)
        if names.data_parallel_attention is not None and given.get(names.data_parallel_attention) is True:
            tensor = max(tensor // engines, 1)  # the engines share the GPUs of the tensor-parallel group
        return cls(tensor, size(names.pipeline_parallel), engines, size(names.context_parallel))

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self.tensor * self.pipeline * self.copies

    @property
    def copies(self) -> int:
        """How often the server holds its weights."""
        return self.engines * self.context


def logged(log: str, pattern: re.Pattern[str], rank: re.Pattern[str], ranks: int) -> list[float]:
    """Return the numbers that ranks log as the first group of `pattern`, one a rank, the last that it logged.

    The first group of `rank`, in the same line, names it. Of lines that name none the last `ranks` count: a log goes on
    when its server is started again.
    """
    named: dict[str, float] = {}
    unnamed: list[float] = []
    for line in log.splitlines():
        if found := pattern.search(line):
            value = float(found[1].replace(",", ""))
            if who := rank.search(line):
                named[who[1].strip()] = value
            else:
                unnamed.append(value)
    return list(named.values()) or unnamed[-ranks:]


def together(values: Sequence[float], ranks: int, even: bool = True) -> float | None:
    """Return the sum over all ranks of what was seen of them; None where that cannot be known.

    Where fewer were seen than there are, the others are taken for as large if they are `even`.
    """
    if not values or (len(values) < ranks and not even):
        return None
    if len(values) < ranks:
        return sum(values) / len(values) * ranks
    return sum(values)


def usage_of_engines(shares: Sequence[float]) -> dict[str, float]:
    """Return `kv_cache_usage_fraction`, the share in use of all engines' KV caches together, which are equally large,
    and of several engines the fullest one's as well.
    """
    if not shares:
        return {}
    fullest = {"kv_cache_usage_fullest_fraction": max(shares)} if len(shares) > 1 else {}
    return {"kv_cache_usage_fraction": sum(shares) / len(shares), **fullest}
