"""A race names no winner where there is none, finds one where there is, and drops what is beaten."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from memgap.tuning.race import RaceRule, Verdict, judge
from memgap.tuning.statement import statement

RULE = RaceRule(false_winner_rate=0.05, least_blocks=3, most_blocks=6, least_gain_fraction=0.01, screen_fraction=0.3)
LABELS = {"d": "default", "a": "A", "b": "B", "c": "C"}


def run(values: Sequence[Mapping[str, float]], rule: RaceRule = RULE, kept: Sequence[str] = ()) -> tuple[Verdict, int]:
    """Race over given blocks; returns the verdict and how many measurements it took."""
    blocks: list[dict[str, float]] = []
    arms = list(values[0])
    while True:
        verdict = judge(arms, arms[0], kept, blocks, {}, rule)
        if verdict.finished:
            return verdict, sum(map(len, blocks))
        blocks.append({name: values[len(blocks)][name] for name in verdict.measure})


def blocks_of(effects: Mapping[str, float], noise: float, seed: int, drift: float = 0.0) -> list[dict[str, float]]:
    """Return six blocks of noisy arms with these true logarithmic gains."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.normal(0.0, drift, RULE.most_blocks)) if drift else np.zeros(RULE.most_blocks)
    return [{name: float(level[i] + gain + rng.normal(0, noise)) for name, gain in effects.items()} for i in range(6)]


def test_equal_configurations_have_a_false_winner_at_most_as_often_as_allowed() -> None:
    equal = dict.fromkeys("dabc", 0.0)
    found = [run(blocks_of(equal, 0.01, seed))[0].winner for seed in range(200)]
    assert sum(one != "d" for one in found) <= 0.05 * 200
    singles = [max(block, key=lambda name: block[name]) for block in (blocks_of(equal, 0.01, s)[0] for s in range(200))]
    assert sum(one != "d" for one in singles) > 0.6 * 200, "the best of single runs is nearly always a false winner"


def test_a_drift_of_the_machine_makes_no_winner() -> None:
    equal = dict.fromkeys("dabc", 0.0)
    found = [run(blocks_of(equal, 0.005, seed, drift=0.05))[0].winner for seed in range(100)]
    assert sum(one != "d" for one in found) <= 5


def test_a_clear_winner_is_found_and_the_others_leave_early() -> None:
    verdict, runs = run(blocks_of({"d": 0.0, "a": 0.2, "b": 0.05, "c": -0.1}, 0.002, 1))
    assert verdict.winner == "a" and verdict.tied == []
    assert runs < 6 * 4
    standing = verdict.standings["a"]
    assert standing.gain_low_fraction is not None and standing.gain_high_fraction is not None
    assert 0 < standing.gain_low_fraction < math.expm1(0.2) < standing.gain_high_fraction
    assert verdict.standings["c"].state in ("beaten", "screened")


def test_what_is_far_behind_is_measured_once() -> None:
    verdict, _ = run(blocks_of({"d": 0.0, "a": 0.1, "b": -1.0}, 0.001, 2))
    assert verdict.standings["b"].state == "screened" and verdict.standings["b"].blocks == 1
    assert verdict.standings["b"].gain_fraction == pytest.approx(math.expm1(-1.0), abs=0.02)
    kept, _ = run(
        blocks_of({"d": 0.0, "a": 0.1, "b": -1.0}, 0.001, 2),
        RaceRule(least_blocks=3, most_blocks=6, screen_fraction=None),
    )
    assert kept.standings["b"].blocks > 1


def test_the_default_stays_where_it_is_the_best_and_is_never_left_out() -> None:
    verdict, _ = run(blocks_of({"d": 0.0, "a": -0.2, "b": -0.25}, 0.002, 3))
    assert verdict.winner == "d" and verdict.finished == "no other configuration can gain 1.0%"
    beaten, _ = run(blocks_of({"d": 0.0, "a": 0.2, "b": 0.19}, 0.004, 4))
    assert beaten.standings["d"].blocks == max(one.blocks for one in beaten.standings.values())


def test_no_difference_is_an_answer() -> None:
    verdict, _ = run(blocks_of({"d": 0.0, "a": 0.0, "b": 0.0}, 1e-5, 5))
    assert verdict.winner == "d" and verdict.finished == "no other configuration can gain 1.0%"
    said = statement(verdict, LABELS, "output tok/s per GPU", True, RULE)
    assert said.startswith("No configuration is shown to be better than default (2 blocks): 2 can gain less than 1.0%")


def test_equal_winners_are_said_to_be_tied() -> None:
    verdict, _ = run(blocks_of({"d": 0.0, "a": 0.2, "b": 0.2}, 1e-4, 6))
    assert {verdict.winner, *verdict.tied} == {"a", "b"}
    said = statement(verdict, LABELS, "output tok/s per GPU", True, RULE)
    assert "is better than default in output tok/s per GPU" in said and "Not told apart from it: " in said
    assert "at 95 % over all comparisons and looks" in said


def test_a_failed_reference_leaves_a_winner_without_a_comparison() -> None:
    values = [{"a": 0.1 + 0.001 * i, "b": 0.0} for i in range(3)]
    verdict = judge(["d", "a", "b"], "d", [], values, {"d": (1, "oom: no memory")}, RULE)
    assert verdict.reference is None and verdict.standings["d"].state == "failed"
    assert verdict.finished and verdict.winner == "a"
    assert "the reference failed" in statement(verdict, LABELS, "x", True, RULE)


def test_everything_failing_has_no_winner() -> None:
    verdict = judge(["d", "a"], "d", [], [{}], {"d": (1, "oom"), "a": (1, "crash")}, RULE)
    assert verdict.winner is None and verdict.finished == "every configuration failed"


def test_an_ended_budget_decides_nothing_before_the_least_blocks() -> None:
    values = blocks_of({"d": 0.0, "a": 0.2}, 0.001, 7)
    verdict = judge(["d", "a"], "d", [], values[:2], {}, RULE, "the budget allows no further block")
    assert verdict.winner == "d"
    assert statement(verdict, LABELS, "x", True, RULE).startswith("Not decided: 2 blocks measured, 3 are needed")
    enough = judge(["d", "a"], "d", [], values[:3], {}, RULE, "the budget allows no further block")
    assert enough.winner == "a"


def test_what_is_kept_is_measured_to_the_end() -> None:
    verdict, _ = run(blocks_of({"d": 0.0, "a": 0.1, "b": -0.3}, 0.002, 8), kept=["b"])
    assert verdict.standings["b"].state in ("beaten", "screened")
    assert verdict.standings["b"].blocks == verdict.standings["a"].blocks


def test_a_noisy_configuration_is_no_winner_by_its_noise() -> None:
    found = []
    for seed in range(100):
        values = blocks_of({"d": 0.0, "a": 0.0, "b": 0.0, "c": 0.0}, 0.002, seed)
        rng = np.random.default_rng(1000 + seed)
        for block in values:
            block["c"] += float(rng.normal(0.0, 0.05))
        found.append(run(values)[0].winner)
    assert sum(one != "d" for one in found) <= 5


def test_levels_are_spent_once() -> None:
    looks = range(RULE.least_blocks, RULE.most_blocks + 1)
    assert sum(2 * 3 * RULE.tail(look, 3) for look in looks) == pytest.approx(RULE.false_winner_rate)
