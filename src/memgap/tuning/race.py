"""A race of configurations, decided from blocks in which each of them was measured once.

Values are logarithms of the objective (greater is better), so that a difference of two is a ratio. Two tests are made:

- *claim*: a configuration is better than the reference. Paired differences by block, Student's t with their own spread,
  at a level that is divided by the number of comparisons and spread over the looks (half of it for the last look), so
  that the chance of any false claim in the race is at most `false_winner_rate`, however often it is looked at.
- *drop*: a configuration is worse than the leader, or can gain too little over the reference to matter, and need not be
  measured any more. The spread is pooled over all that still run, and its own where that is greater, so that two blocks
  can do. A wrong drop can lose the best one; it cannot make a false winner.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from memgap.stats.sign_flip import sign_flip_p
from memgap.stats.student import t_quantile

Block = Mapping[str, float]
"""Name of an arm -> logarithm of its objective in this block."""


@dataclass(frozen=True)
class RaceRule:
    """How a race is decided.

    `false_winner_rate`: the chance that a configuration is called better than the reference although none is.
    `least_gain_fraction`: smaller gains do not matter, so the race ends where nothing greater is left.
    `screen_fraction`: after the first block, what is slower than the leader by more than this share is dropped.
    """

    false_winner_rate: float = 0.05
    least_blocks: int = 3
    most_blocks: int = 8
    least_gain_fraction: float = 0.01
    screen_fraction: float | None = 0.3

    def tail(self, look: int, comparisons: int) -> float:
        """Return the probability in one tail of a claim after `look` blocks."""
        looks = self.most_blocks - self.least_blocks + 1
        share = 1.0 if looks == 1 else 0.5 if look == self.most_blocks else 0.5 / (looks - 1)
        return self.false_winner_rate * share / (2 * max(1, comparisons))

    def drop_tail(self, comparisons: int) -> float:
        """Return the probability in one tail of a drop, the same at each look from the second block on."""
        return self.false_winner_rate / (max(1, self.most_blocks - 1) * max(1, comparisons))


@dataclass
class Standing:
    """Where an arm stands: against the reference (ratios minus 1, `low` and `high` simultaneous), and why it left.

    `state`: "running", "beaten", "screened", "equal" (it can gain too little), "failed"; `left_after`: the block.
    """

    name: str
    blocks: int = 0
    state: str = "running"
    left_after: int | None = None
    reason: str = ""
    gain_fraction: float | None = None
    gain_low_fraction: float | None = None
    gain_high_fraction: float | None = None
    sign_flip_p: float | None = None
    claimed: bool = False


@dataclass
class Verdict:
    """What the blocks so far say. `measure`: arms of the next block; `finished`: why there is none, else empty.

    `winner` is None until the race is finished or ended; `tied`: arms that may be as good as the winner.
    """

    standings: dict[str, Standing]
    reference: str | None
    measure: list[str]
    finished: str
    winner: str | None = None
    tied: list[str] = field(default_factory=list)


def judge(
    arms: Sequence[str],
    reference: str | None,
    kept: Collection[str],
    blocks: Sequence[Block],
    failures: Mapping[str, tuple[int, str]],
    rule: RaceRule,
    ended: str = "",
) -> Verdict:
    """Return where the race stands after `blocks`.

    `kept` arms and the reference are measured to the end, also when they are beaten. `failures`: arm -> (number of the
    block, from 1, in which it failed; why). `ended`: why no further block is measured, whatever the race says.
    """
    race = _Race(arms, reference, kept, rule)
    for number in range(1, len(blocks) + 1):
        race.look(blocks[:number], failures)
    return race.verdict(len(blocks), failures, ended)


class _Race:
    def __init__(self, arms: Sequence[str], reference: str | None, kept: Collection[str], rule: RaceRule) -> None:
        self._arms = list(dict.fromkeys(arms))
        self._reference = reference
        self._kept = set(kept) | ({reference} if reference else set())
        self._rule = rule
        self._comparisons = len(self._arms) - 1
        self._standings = {name: Standing(name) for name in self._arms}
        self._blocks: Sequence[Block] = []
        self._spreads: dict[tuple[int, tuple[str, ...]], float] = {}

    def look(self, blocks: Sequence[Block], failures: Mapping[str, tuple[int, str]]) -> None:
        self._blocks, number = blocks, len(blocks)
        self._fail(failures, number)
        for name in self._measured():
            self._standings[name].blocks = number
            self._compare(name, number)
        running = self._running()
        if len(running) > 1:
            leader = self._leader(running)
            for name in running:
                if name != leader and (why := self._dominated(leader, name, running)):
                    self._leave(name, "screened" if number == 1 else "beaten", number, why)
        self._leave_the_pointless(number)

    def _leave_the_pointless(self, number: int) -> None:
        """Leave out what can gain no more over the reference than does not matter."""
        running = self._running()
        if number < 2 or self._reference not in running:
            return
        for name in running:
            if name != self._reference:
                gain = self._differences(name, self._reference)
                most = math.expm1(fmean(gain) + self._reach(gain, running))
                if most < self._rule.least_gain_fraction:
                    self._leave(name, "equal", number, f"can gain {most:+.1%} at most after {number} blocks")

    def verdict(self, number: int, failures: Mapping[str, tuple[int, str]], ended: str) -> Verdict:
        self._fail(failures, number)
        finished = self._finished(number) or ended
        found = Verdict(self._standings, self._reference, [] if finished else self._measured(), finished)
        if finished:
            self._name_winner(found, number)
        return found

    def _fail(self, failures: Mapping[str, tuple[int, str]], number: int) -> None:
        for name, (block, why) in failures.items():
            if block <= number and name in self._standings and self._standings[name].state != "failed":
                self._leave(name, "failed", block, why)
        if self._reference is not None and self._reference in failures and failures[self._reference][0] <= number:
            self._reference = None

    def _leave(self, name: str, state: str, number: int, why: str) -> None:
        standing = self._standings[name]
        standing.state, standing.left_after, standing.reason = state, number, why

    def _running(self) -> list[str]:
        return [name for name in self._arms if self._standings[name].state == "running"]

    def _measured(self) -> list[str]:
        """Return what the next block measures: what runs, and what is kept for comparison."""
        states = {name: self._standings[name].state for name in self._arms}
        kept = {name for name in self._kept if states.get(name) in ("beaten", "screened", "equal")}
        return [name for name in self._arms if states[name] == "running" or name in kept]

    def _leader(self, names: Sequence[str]) -> str:
        return max(names, key=lambda name: fmean(block[name] for block in self._blocks))

    def _differences(self, one: str, other: str) -> list[float]:
        return [block[one] - block[other] for block in self._blocks if one in block and other in block]

    def _dominated(self, leader: str, name: str, running: Sequence[str]) -> str:
        """Return why an arm need not be measured any more, or an empty text."""
        number = len(self._blocks)
        ahead = self._differences(leader, name)
        behind = 1 - math.exp(-fmean(ahead))
        if number == 1:
            screen = self._rule.screen_fraction
            if screen is None or behind <= screen:
                return ""
            return f"{behind:.0%} behind the best in the first block"
        surely = fmean(ahead) > self._reach(ahead, running)
        return f"{behind:.1%} behind the best after {number} blocks" if surely else ""

    def _reach(self, differences: Sequence[float], running: Sequence[str]) -> float:
        """Return how far the mean of paired differences may lie from the truth, for drops."""
        number = len(differences)
        spread = max(self._pooled_spread(running), stdev(differences))
        freedom = (number - 1) * (len(running) - 1)
        return t_quantile(self._rule.drop_tail(self._comparisons), freedom) * spread / math.sqrt(number)

    def _pooled_spread(self, running: Sequence[str]) -> float:
        """Return the standard deviation of a paired difference, of all that runs, without effects of arm and block."""
        place = len(self._blocks), tuple(running)
        if place not in self._spreads:
            self._spreads[place] = self._spread_of(running)
        return self._spreads[place]

    def _spread_of(self, running: Sequence[str]) -> float:
        rows = [[block[name] for name in running] for block in self._blocks]
        middle = fmean(map(fmean, rows))
        of_arm = [fmean(column) for column in zip(*rows, strict=True)]
        squares = sum((value - fmean(row) - of_arm[i] + middle) ** 2 for row in rows for i, value in enumerate(row))
        return math.sqrt(2 * squares / ((len(rows) - 1) * (len(running) - 1)))

    def _bounds(self, differences: Sequence[float], number: int) -> tuple[float, float] | None:
        """Return the simultaneous bounds of a mean difference at this look; None where nothing can be said."""
        if len(differences) < max(2, self._rule.least_blocks):
            return None
        quantile = t_quantile(self._rule.tail(number, self._comparisons), len(differences) - 1)
        half = quantile * stdev(differences) / math.sqrt(len(differences))
        return fmean(differences) - half, fmean(differences) + half

    def _compare(self, name: str, number: int) -> None:
        if self._reference is None or name == self._reference:
            return
        standing, differences = self._standings[name], self._differences(name, self._reference)
        if not differences:
            return
        standing.gain_fraction = math.expm1(fmean(differences))
        standing.sign_flip_p = sign_flip_p(differences)
        bounds = self._bounds(differences, number)
        if bounds is not None:
            standing.gain_low_fraction, standing.gain_high_fraction = map(math.expm1, bounds)
            standing.claimed = bounds[0] > 0

    def _finished(self, number: int) -> str:
        running, least_gain = self._running(), self._rule.least_gain_fraction
        if not running:
            return "every configuration failed"
        others = [name for name in running if name != self._reference]
        if not others and number:
            return f"no other configuration can gain {least_gain:.1%}" if number > 1 else "no other one is left"
        if number < self._rule.least_blocks:
            return ""
        if self._reference is None:
            if len(running) == 1:
                return "the others are beaten or failed"
        elif all(self._standings[name].claimed for name in running if name != self._reference):
            if self._reference not in running and len(running) == 1:
                return "the others are beaten"
            leader = self._leader(others)
            reach = [self._bounds(self._differences(name, leader), number) for name in others if name != leader]
            if self._reference not in running and all(one and math.expm1(one[1]) < least_gain for one in reach):
                return f"what is left differs by less than {least_gain:.1%}"
        return f"{number} blocks are measured, the most" if number >= self._rule.most_blocks else ""

    def _name_winner(self, found: Verdict, number: int) -> None:
        running = self._running()
        if not running:
            found.winner = self._reference
            return
        if self._reference is None:
            found.winner = self._leader(running) if number else running[0]
        else:
            claimed = [name for name in running if self._standings[name].claimed]
            found.winner = self._leader(claimed) if claimed else self._reference
        found.tied = [name for name in running if name not in (found.winner, self._reference)]
