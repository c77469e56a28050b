"""Made-up workloads with structure: shared prefixes, conversations, mixtures, and prompts of trace rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memgap.datasets.lengths import Lengths
from memgap.datasets.traces import Trace

Ids = npt.NDArray[np.int64]
MakeIds = Callable[[Ids, Ids], list[list[int]]]
"""Takes lengths and numbers, gives ids: prompts of these lengths, whose beginnings differ as their numbers do."""


def mixed_lengths(spec: Mapping[str, Any], stream: np.random.RandomState) -> tuple[Lengths, Ids]:
    """Return lengths, and for each request the number of its part; parts are drawn by weight."""
    parts = spec["parts"]
    weights = np.array([one["weight"] for one in parts], dtype=np.float64)
    chosen: Ids = stream.choice(len(parts), size=spec["requests"], p=weights / weights.sum()).astype(np.int64)

    def draw(name: str) -> Ids:
        low = np.array([one[name]["min"] for one in parts])[chosen]
        high = np.array([one[name]["max"] for one in parts])[chosen]
        share = stream.random_sample(len(chosen))
        drawn: Ids = low + np.floor(share * (high - low + 1)).astype(np.int64)
        for number, part in enumerate(parts):
            if choices := part[name].get("choices"):
                mine = chosen == number
                drawn[mine] = np.array(choices)[(share[mine] * len(choices)).astype(np.int64)]
        return drawn

    return Lengths(draw("prompt_tokens"), draw("output_tokens")), chosen


def with_shared_prefixes(
    suffixes: Sequence[Sequence[int]], spec: Mapping[str, Any], make_ids: MakeIds, stream: np.random.RandomState
) -> tuple[list[list[int]], Ids]:
    """Return prompts of a prefix and an own suffix each, and the number of each prompt's prefix.

    Every prefix is used about equally often, in random order. Without a length there is none, and the numbers remain.
    """
    count = spec["prefixes"]
    numbers = spec["requests"] + np.arange(count)
    length = spec["prefix_tokens"]
    prefixes = make_ids(np.full(count, length), numbers) if length else [[]] * count
    chosen = stream.permutation(np.arange(len(suffixes)) % count)
    return [[*prefixes[which], *suffix] for which, suffix in zip(chosen, suffixes, strict=True)], chosen


def with_history(
    turns: Sequence[Sequence[int]], outputs: Sequence[int], spec: Mapping[str, Any], make_ids: MakeIds
) -> tuple[list[list[int]], Ids]:
    """Return prompts that hold their conversation's history, and the number of each prompt's conversation.

    The history's replies are made-up ids of the replies' lengths, since the real ones are not known beforehand: a
    prefix cache finds the earlier prompts again, but not the replies.
    """
    per = spec["turns"]
    number = np.arange(len(turns)) // per
    replies = make_ids(np.asarray(outputs, dtype=np.int64), np.arange(len(turns)))
    prompts: list[list[int]] = []
    for index, turn in enumerate(turns):
        history = [*prompts[index - 1], *replies[index - 1]] if index % per else []
        prompts.append([*history, *turn])
    return prompts, number


def trace_prompts(trace: Trace, spec: Mapping[str, Any], own: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the prompts of a trace's rows: blocks with equal hash ids are equal; without hash ids the `own` ids."""
    prompts: list[list[int]] = []
    for row, ids in zip(trace.rows, own, strict=True):
        shared = [token for one in row.hash_ids for token in _block(spec, one, trace.block_tokens)][: row.prompt_tokens]
        prompts.append([*shared, *ids[len(shared) :]])
    return prompts


def _block(spec: Mapping[str, Any], hash_id: int, tokens: int | None) -> list[int]:
    words, rest = [int(spec["seed"]) & 0xFFFFFFFF, hash_id & 0xFFFFFFFF, 7], hash_id >> 32
    while rest not in (0, -1):  # ids of 64 bits and more differ in their upper words, too
        words.append(rest & 0xFFFFFFFF)
        rest >>= 32
    ids: list[int] = np.random.RandomState(words).randint(10, spec["vocabulary_size"], size=tokens).tolist()
    return ids
