"""What a trace file does not say, found by rules that its rows have to agree with: unit of time and size of blocks.

Files with the same column names have milliseconds and blocks of 512 tokens (Mooncake), seconds and blocks of 16
(Qwen-Bailian), or whatever a tool was told. Where the rows allow two readings, the user is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from memgap.errors import UserError

SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
LIKELY_REQ_S = (0.01, 200.0)
"""Mean rates of a service that are taken without a question: Azure, BurstGPT, Mooncake and Qwen-Bailian have 0.2 to 40.

The bounds are 20,000 apart and units 1,000, so there are rates at which both seconds and milliseconds are likely.
"""
EPOCH_S = (1e9, 4e9)
"""Seconds since 1970 from 2001 to 2096: times so great are dates, which gives their unit away."""
MOONCAKE_BLOCK, BAILIAN_BLOCK = 512, 16
BLOCK_SIZES: Final = (MOONCAKE_BLOCK, BAILIAN_BLOCK, 8, 32, 64, 128, 256, 1024, 2048, 4096)
"""Sizes that are tried, the published ones first; for two blocks and more at most one power of two fits a row."""
LEAST_FIT = 0.99


@dataclass
class Times:
    """What is known of a trace's times: their bounds in the file's own unit, and what says the unit.

    `published` is the unit that the layout's authors document, None where files of that layout differ.
    """

    rows: int
    first: float
    last: float
    declared: str | None = None
    named: str | None = None
    published: str | None = None
    dates: bool = False

    def rate_req_s(self, unit: str) -> float:
        """Return the mean rate of the whole file, were `unit` its unit."""
        return (self.rows - 1) / ((self.last - self.first) * SECONDS[unit])

    def likely(self, unit: str) -> bool:
        """Whether the file's mean rate is that of a service, were `unit` its unit."""
        return LIKELY_REQ_S[0] < self.rate_req_s(unit) < LIKELY_REQ_S[1]


def unit_of_time(times: Times, block_tokens: int | None, where: str) -> tuple[str, str]:
    """Return the unit of a trace's times and by what it is known; raises UserError, which asks, where neither can be.

    In this order: dates, the dataset's `time_unit`, the column's name, the layout's published unit if the rate is
    likely in it or in no other, times since 1970, the only unit of s and ms in which the rate is likely, and the size
    of hash blocks, which tells Mooncake's files (ms) from Qwen-Bailian's (s).
    """
    if times.dates:
        return "s", "dates"
    if times.declared or times.named:
        return (times.declared, "time_unit") if times.declared else (str(times.named), "column")
    if times.rows < 2 or times.last <= times.first:
        return times.published or "ms", "no gaps"
    likely = [unit for unit in SECONDS if times.likely(unit)]
    if times.published:
        if times.published in likely or not likely:
            return times.published, "layout"
        raise _question(times, where)
    for unit, seconds in SECONDS.items():
        if EPOCH_S[0] <= times.first * seconds <= EPOCH_S[1] and unit in likely:
            return unit, "since 1970"
    if len(likely) == 1 and likely[0] in ("s", "ms"):
        return likely[0], "rate"
    writer = {MOONCAKE_BLOCK: "ms", BAILIAN_BLOCK: "s"}.get(block_tokens or 0)
    if writer in likely:
        return str(writer), "blocks"
    raise _question(times, where)


def _question(times: Times, where: str) -> UserError:
    rates = " or ".join(f"{times.rate_req_s(unit):.3g} requests/s (`time_unit: {unit}`)" for unit in ("s", "ms"))
    return UserError(
        f"the trace {where} does not say the unit of its times: its {times.rows} rows are {rates}; "
        "write the right one (s, ms, us or ns) into the dataset."
    )


@dataclass
class Blocks:
    """How many rows each size of hash blocks fits: a row of n tokens has ceil(n / size) ids, or floor, of full blocks.

    `declared` is the dataset's `block_tokens`.
    """

    declared: int | None = None
    rows: int = 0
    _full: dict[int, int] = field(default_factory=dict)
    _whole: dict[int, int] = field(default_factory=dict)

    def see(self, tokens: int, ids: int) -> None:
        """Count a row of `tokens` prompt tokens and `ids` hash ids; rows without ids say nothing."""
        if not ids:
            return
        self.rows += 1
        for size in self._sizes():
            self._full[size] = self._full.get(size, 0) + (ids == -(-tokens // size))
            self._whole[size] = self._whole.get(size, 0) + (ids == tokens // size)

    def size(self, where: str) -> tuple[int | None, int]:
        """Return tokens a block and how many rows do not fit; None for a trace without ids. Raises UserError."""
        if not self.rows:
            return self.declared, 0
        if self.declared is not None:
            fits = max(self._full[self.declared], self._whole[self.declared])
            if 2 * fits < self.rows:
                raise UserError(
                    f"the trace {where}: block_tokens is {self.declared}, but only {fits} of {self.rows} rows have as "
                    "many hash_ids as their input length asks for; correct it, or leave it out to have it found."
                )
            return self.declared, self.rows - fits
        for counted in (self._full, self._whole):
            best = max(BLOCK_SIZES, key=lambda size: counted[size])  # the first of equals: a published one
            if counted[best] >= LEAST_FIT * self.rows:
                return best, self.rows - counted[best]
        raise UserError(
            f"the trace {where}: no block size fits the number of hash_ids to the input lengths; write `block_tokens` "
            "into the dataset, or take hash_ids out of the file."
        )

    def _sizes(self) -> tuple[int, ...]:
        return BLOCK_SIZES if self.declared is None else (self.declared,)
