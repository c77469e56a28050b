"""What a layout holds, against counting every place of every request at every step."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.stats.layouts import REASONS, Held, Lengths, contiguous, paged, static, used

LONGEST = 16
requests = st.lists(st.builds(Lengths, st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=9)


def counted_static(batches: list[list[Lengths]], room: str, most: int) -> dict[str, int]:
    """Return the sums by looking at each place of each row at each step of each batch."""
    found = dict.fromkeys(("used", *REASONS), 0)
    for batch in batches:
        prompt, steps = max(one.prompt for one in batch), max(one.output for one in batch)
        for step in range(steps):
            there = prompt + step
            places = {"dynamic": there, "batch": prompt + steps - 1, "max-length": max(most, prompt + steps - 1)}[room]
            for one in batch:
                for place in range(places):
                    if place >= there:
                        found["reserved"] += 1
                    elif step >= one.output:
                        found["finished"] += 1
                    elif place < prompt - one.prompt:
                        found["padding"] += 1
                    else:
                        found["used"] += 1
    return found


def sums(held: Held) -> dict[str, int]:
    """Return a layout's token-steps by kind."""
    return {name: getattr(held, name) for name in ("used", *REASONS)}


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 5), st.sampled_from(["dynamic", "batch", "max-length"]))
def test_static_batches_are_what_counting_finds(lengths: list[Lengths], size: int, room: str) -> None:
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    held = static(lengths, size, room, LONGEST)
    assert sums(held) == counted_static(batches, room, LONGEST)
    assert held.held == sum(sums(held).values())


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 8))
def test_blocks_and_contiguous_room_are_what_counting_finds(lengths: list[Lengths], block: int) -> None:
    tokens = [one.prompt + step for one in lengths for step in range(one.output)]
    assert used(lengths) == sum(tokens)
    assert paged(lengths, block).held == sum(-(-one // block) * block for one in tokens)
    assert contiguous(lengths, LONGEST).held == LONGEST * len(tokens)
    assert paged(lengths, 1).wasted_fraction == 0


@settings(max_examples=40, deadline=None)
@given(requests, st.integers(1, 8))
def test_a_batch_of_one_wastes_nothing_and_blocks_less_than_one_block(lengths: list[Lengths], block: int) -> None:
    assert static(lengths, 1).wasted_fraction == 0
    held = paged(lengths, block)
    assert held.rounding <= (block - 1) * sum(one.output for one in lengths)


def test_an_example_by_hand() -> None:
    lengths = [Lengths(2, 3), Lengths(4, 1)]
    held = static(lengths, 2)
    # steps of 4, 5 and 6 places in two rows; used 2 + 3 + 4 and 4
    assert sums(held) == {"used": 13, "padding": 6, "finished": 11, "reserved": 0, "rounding": 0}
    assert held.peak_tokens == 12
    assert static(lengths, 2, "batch").held == 2 * 3 * 6
    assert static(lengths, 2, "max-length", 10).peak_tokens == 20
    assert held.wasted_fraction == pytest.approx(17 / 30)
    assert paged(lengths, 4).held == 4 + 4 + 4 + 4


def test_nothing_held_wastes_nothing() -> None:
    empty: Any = Held(0)
    assert empty.wasted_fraction == 0.0
