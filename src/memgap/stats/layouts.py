"""What a KV cache holds and what of it is used, for the ways to lay it out; exact, from the requests' lengths alone.

All sums are in token-steps: one place for one token of one request, held during one decode step. A request of p prompt
and o output tokens has o steps; at step k (0 to o - 1) its first p + k tokens have their keys and values in the cache.
The token made last needs none. Held places are either used, or wasted for one of these reasons:

- `padding`: left of a prompt that is shorter than its batch's longest
- `finished`: of a request that has ended and waits for its batch's longest
- `reserved`: kept for tokens that are not there yet, or never come
- `rounding`: the rest of a block that is not full
"""

from collections.abc import Sequence
from dataclasses import dataclass

REASONS = ("padding", "finished", "reserved", "rounding")


@dataclass(frozen=True)
class Held:
    """Token-steps of a layout: `used`, and those wasted by reason.

    `peak_tokens` is the most that was held at once; None where that depends on when requests come and go.
    """

    used: int
    padding: int = 0
    finished: int = 0
    reserved: int = 0
    rounding: int = 0
    peak_tokens: int | None = None

    @property
    def held(self) -> int:
        """All of it."""
        return self.used + self.padding + self.finished + self.reserved + self.rounding

    @property
    def wasted_fraction(self) -> float:
        """The share of what was held that was not used, 0 to 1."""
        return 1.0 - self.used / self.held if self.held else 0.0


@dataclass(frozen=True)
class Lengths:
    """Prompt and output tokens of one request."""

    prompt: int
    output: int


def used(requests: Sequence[Lengths]) -> int:
    """Return the token-steps that the requests need under any layout."""
    return sum(one.output * one.prompt + one.output * (one.output - 1) // 2 for one in requests)


def paged(requests: Sequence[Lengths], block_tokens: int) -> Held:
    """Return what blocks of `block_tokens` hold: a request's own tokens rounded up, from its first to its last step."""
    rounded = sum(_rounded_up(one, block_tokens) for one in requests)
    needed = used(requests)
    return Held(needed, rounding=rounded - needed)


def contiguous(requests: Sequence[Lengths], most_tokens: int) -> Held:
    """Return what is held where each request gets room for `most_tokens` from its first to its last step."""
    needed = used(requests)
    return Held(needed, reserved=sum(one.output * most_tokens for one in requests) - needed)


def static(requests: Sequence[Lengths], size: int, room: str = "dynamic", most_tokens: int = 0) -> Held:
    """Return what static batches of `size` requests in their order hold until the longest of each has ended.

    `room`: "dynamic" holds at each step what is there then; "batch" from the start what the batch's longest prompt with
    its longest output needs; "max-length" room for `most_tokens` for every request, or for what the batch needs where
    padding makes that more.
    """
    total = {"used": used(requests), "padding": 0, "finished": 0, "reserved": 0}
    peak = 0
    for first in range(0, len(requests), size):
        batch = requests[first : first + size]
        prompt, steps = max(one.prompt for one in batch), max(one.output for one in batch)
        needed = prompt + steps - 1
        whole = {"dynamic": 0, "batch": needed, "max-length": max(most_tokens, needed)}[room]
        grown = steps * prompt + steps * (steps - 1) // 2  # what one row has at each step, summed over the steps
        for one in batch:
            total["padding"] += one.output * (prompt - one.prompt)
            total["finished"] += grown - one.output * prompt - one.output * (one.output - 1) // 2
            total["reserved"] += steps * whole - grown if whole else 0
        peak = max(peak, len(batch) * (whole or needed))
    return Held(**total, peak_tokens=peak)


def _rounded_up(one: Lengths, block: int) -> int:
    """Return the token-steps of a request's blocks: the sum over its steps of its tokens rounded up to whole blocks."""
    return block * (_blocks_up_to(one.prompt + one.output - 1, block) - _blocks_up_to(one.prompt - 1, block))


def _blocks_up_to(tokens: int, block: int) -> int:
    """Return the sum of the blocks of 1 token, of 2 tokens, ..., of `tokens` tokens."""
    full, rest = divmod(tokens, block)
    return block * full * (full + 1) // 2 + rest * (full + 1)
