"""Effects, intervals and verdicts by hand values; equal arms are hardly ever called different."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from memgap.labs.claims import Cells, Claim, Result, claims_of, judged, verdict_of
from memgap.labs.expected import FUNCTIONS, UnknownError
from memgap.labs.names import FAILS, HOLDS, UNDECIDED
from memgap.stats.student import t_975
from tests.support.labs import lab_plan

RUNS = 500


def row(arm: str, block: int, value: float, at: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a row of a lab's table with one latency."""
    plain = {"arm": arm, "block": block, "phase": "", "at": at or {}, "status": "ok", "verdict": "valid"}
    return {**plain, "itl_mean_ms": value, "output_throughput_tok_s": value, "requests_completed": 1000.0, **more}


def of_blocks(slow: Sequence[float], fast: Sequence[float]) -> list[dict[str, Any]]:
    """Return the rows of two arms, a value a block."""
    pairs = (("slow", slow), ("fast", fast))
    return [row(arm, block, value) for arm, values in pairs for block, value in enumerate(values, start=1)]


def result(claim: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **lab: Any) -> Result:
    """Return what becomes of one claim of a lab."""
    others = {"first": lab.pop("first")} if "first" in lab else {}
    plan = lab_plan(claims={**others, "1": {"say": "it is so", **claim}}, **lab)
    return judged(claims_of(plan, "labs")["1"], Cells(rows, plan["axes"], lab.get("left_out", {})))


RATIO: dict[str, Any] = {"ratio": ["itl_mean_ms", "slow", "fast"]}


def test_a_ratio_is_paired_within_blocks_and_averaged_in_logarithms() -> None:
    found = result({**RATIO, "above": 1.5}, of_blocks([20.0, 44.0, 90.0], [10.0, 20.0, 45.0]))
    logs = [math.log(2.0), math.log(2.2), math.log(2.0)]
    half = t_975(2) * float(np.std(logs, ddof=1)) / math.sqrt(3)
    assert found.effect == pytest.approx(math.exp(np.mean(logs)))
    assert (found.low, found.high) == (
        pytest.approx(math.exp(np.mean(logs) - half)),
        pytest.approx(math.exp(np.mean(logs) + half)),
    )
    assert (found.verdict, found.blocks) == ("holds", 3)


def test_a_difference_is_in_the_unit_of_its_metric() -> None:
    found = result(
        {"difference": ["itl_mean_ms", "slow", "fast"], "between": [9, 11]}, of_blocks([20, 21, 22], [10, 11, 12])
    )
    assert (found.effect, found.low, found.high, found.verdict) == (10, 10, 10, "holds")


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({"above": 1.9}, "holds"),
        ({"above": 2.1}, "does not hold"),
        ({"above": 2.0}, "undecided"),
        ({"below": 2.1}, "holds"),
        ({"below": 1.9}, "does not hold"),
        ({"between": [1.9, 2.1]}, "holds"),
        ({"between": [2.1, 3.0]}, "does not hold"),
        ({"within": 1.1}, "holds"),
        ({"within": 0.5}, "does not hold"),
        ({"outside": 0.5}, "holds"),
        ({"outside": 1.1}, "does not hold"),
        ({"outside": 1.0}, "undecided"),
    ],
)
def test_verdicts_follow_from_the_interval(bound: dict[str, Any], verdict: str) -> None:
    rows = of_blocks([20.0, 20.02, 19.98], [10.0, 10.0, 10.0])
    assert result({**RATIO, **bound}, rows).verdict == verdict


def test_one_block_decides_nothing() -> None:
    found = result({**RATIO, "above": 1}, of_blocks([20.0], [10.0]))
    assert found.effect == pytest.approx(2.0)
    assert (found.verdict, found.low, found.reason) == ("undecided", None, "one block has no interval")


AXIS = {"axis": {"batch_cap": [1, 2, 4]}}


def along(values: Mapping[str, Sequence[float]], blocks: int = 2) -> list[dict[str, Any]]:
    """Return rows of arms over the axis, alike in all blocks but for a thousandth."""
    return [
        row(arm, block, value * (1 + 0.001 * block), {"batch_cap": cap}, ttft_mean_ms=3 * value + 1)
        for arm, own in values.items()
        for cap, value in zip((1, 2, 4), own, strict=True)
        for block in range(1, blocks + 1)
    ]


def test_axis_values_are_chosen_or_averaged_over() -> None:
    rows = along({"slow": (2.0, 4.0, 8.0), "fast": (1.0, 1.0, 1.0)})
    assert result({**RATIO, "above": 1, "at": {"batch_cap": 2}}, rows, **AXIS).effect == pytest.approx(4.0)
    assert result({**RATIO, "above": 1, "at": {"batch_cap": [1, 2]}}, rows, **AXIS).effect == pytest.approx(8.0**0.5)
    assert result({**RATIO, "above": 1}, rows, **AXIS).effect == pytest.approx(4.0)


def test_a_trend_is_last_by_first_of_a_metric_or_of_a_claim() -> None:
    rows = along({"slow": (2.0, 4.0, 8.0), "fast": (1.0, 3.0, 1.0)})
    assert result({"trend": ["itl_mean_ms", "batch_cap"], "above": 3}, rows, **AXIS).effect == pytest.approx(4.0)
    some = {"trend": ["itl_mean_ms", "batch_cap", "fast"], "above": 1, "at": {"batch_cap": [1, 2]}}
    assert result(some, rows, **AXIS).effect == pytest.approx(3.0)
    first = {"say": "slow", **RATIO, "above": 1}
    of_claim = result({"trend": ["first", "batch_cap"], "above": 1}, rows, first=first, **AXIS)
    assert (of_claim.effect, of_claim.verdict) == (pytest.approx(4.0), "holds")


def test_axes_in_step_are_one_axis_of_a_trend() -> None:
    rows = [
        row("slow", block, value, {"dataset.prompt_tokens": prompt, "dataset.output_tokens": output})
        for block in (1, 2)
        for value, prompt, output in ((2.0, 12, 8), (5.0, 20, 4))
    ]
    axis = {"dataset.prompt_tokens": [12, 20], "dataset.output_tokens": [8, 4]}
    trend = {"trend": ["itl_mean_ms", "dataset.output_tokens"], "above": 1}
    assert result(trend, rows, axis=axis, zip=[list(axis)]).effect == pytest.approx(2.5)


def test_a_line_is_told_by_its_r2_over_an_axis_or_a_metric() -> None:
    rows = along({"slow": (1.0, 2.0, 4.0), "fast": (1.0, 5.0, 1.0)})
    assert result({"linear": ["itl_mean_ms", "batch_cap"], "above": 0.98}, rows, **AXIS).effect == pytest.approx(1.0)
    bent = {"linear": ["itl_mean_ms", "batch_cap", "fast"], "above": 0.98}
    assert result(bent, rows, **AXIS).verdict == "does not hold"
    over = {"linear": ["itl_mean_ms", "ttft_mean_ms", "slow"], "above": 0.98}
    assert result(over, rows, **AXIS).verdict == "holds"


def test_phases_are_compared_at_an_arm() -> None:
    rows = [
        {**row("slow", block, value), "phase": phase}
        for block in (1, 2)
        for phase, value in (("cold", 10.0), ("warm", 2.0))
    ]
    claim = {"ratio": ["itl_mean_ms", "slow@warm", "slow@cold"], "below": 0.5}
    found = result(claim, rows, phases=[{"measure": "cold"}, {"measure": "warm"}])
    assert (found.effect, found.verdict) == (pytest.approx(0.2), "holds")


@pytest.mark.parametrize(
    ("claim", "more", "reason"),
    [
        ({**RATIO, "above": 1}, {"status": "oom", "error_message": "no memory"}, "slow: oom: no memory"),
        (
            {**RATIO, "above": 1},
            {"verdict": "invalid", "verdict_reasons": "the client was late"},
            "the client was late",
        ),
        ({**RATIO, "above": 1}, {"itl_mean_ms": None}, "itl_mean_ms of slow was not measured"),
        (
            {"ratio": ["output_throughput_tok_s", "slow", "fast"], "above": 1},
            {"limit": "offered-load", "arrival": "poisson"},
            "offered load",
        ),
        ({"ratio": ["ttft_p99_ms", "slow", "fast"], "above": 1}, {"requests_completed": 999.0}, "needs 1000 requests"),
        ({"ratio": ["itl_p99_ms", "slow", "fast"], "above": 1}, {"output_tokens": 1900.0}, "there are 900"),
    ],
)
def test_what_has_no_value_is_not_tested_and_says_why(claim: dict[str, Any], more: dict[str, Any], reason: str) -> None:
    rows = [{**one, "ttft_p99_ms": 5.0, "itl_p99_ms": 5.0, **more} for one in of_blocks([2.0, 2.0], [1.0, 1.0])]
    found = result(claim, rows)
    assert (found.verdict, found.effect) == ("not tested", None)
    assert reason in found.reason
    offered = {**claim, "offered": True}
    assert ("limit" in more) == (result(offered, rows).verdict != "not tested")


def test_an_arm_that_was_left_out_is_not_tested() -> None:
    claims = {"1": {"say": "x", **RATIO, "above": 1}}
    plan = lab_plan(claims=claims)
    cells = Cells(of_blocks([1.0, 1.0], [1.0, 1.0]), plan["axes"], {"fast": "sglang is not installed"})
    found = judged(claims_of(plan, "labs")["1"], cells)
    assert (found.verdict, found.reason) == ("not tested", "fast: sglang is not installed")


def test_what_is_expected_divides_the_effect_or_is_taken_from_it() -> None:
    record = {
        "dataset": {
            "kind": "shared-prefix",
            "prefix_tokens": 100,
            "prompt_tokens": {"min": 28, "max": 28},
            "prefixes": 2,
        },
        "load": {"requests": 8},
    }
    more = {"record": record, "kv_block_tokens": 16.0, "summary": {}}
    share = 6 / 8 * 96 / 128
    rows = [{**one, **more} for one in of_blocks([share, share + 0.001], [1.0, 1.0])]
    value = {"value": ["itl_mean_ms", "slow"], "expected": "cached_share"}
    by = result({**value, "within": 0.02}, rows)
    assert (by.effect, by.verdict) == (pytest.approx((2 * share + 0.001) / (2 * share)), "holds")
    less = result({**value, "points": True, "within": 0.02}, rows)
    assert less.effect == pytest.approx(0.0005)
    ratio = {**RATIO, "expected": "cached_share", "points": True, "within": 0.02}
    assert result(ratio, rows).effect == pytest.approx(0.0005)
    unknown = [{**one, "kv_block_tokens": None} for one in rows]
    assert result({**value, "within": 0.02}, unknown).reason == "cached_share: kv_block_tokens is not known"


def test_expectations_by_hand() -> None:
    static = {"summary": {"output_tokens": 30.0, "computed_output_tokens": 120.0}}
    assert FUNCTIONS["useful_fraction"]([{"summary": {}}, static]) == 0.25
    with pytest.raises(UnknownError, match="no arm"):
        FUNCTIONS["useful_fraction"]([{"summary": {}}])
    samples = {
        "record": {
            "dataset": {"prompt_tokens": 40, "output_tokens": 24},
            "load": {"samples": 4},
            "batch_cap": 1,
        },
        "kv_block_tokens": 16.0,
        "kv_pool_tokens": 1600.0,
    }
    # two whole blocks of the prompt once, and four times the rest of 8 with 24 tokens in two blocks
    assert FUNCTIONS["shared_prompt_usage"]([samples]) == pytest.approx((2 + 4 * 2) / 100)


DRAWN: dict[str, Any] = {
    "normal": lambda rng, shape: rng.normal(0.0, 1.0, shape),
    "with outliers": lambda rng, shape: rng.standard_t(2.0, shape),
}


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("blocks", [3, 5, 8])
def test_equal_arms_are_called_different_in_at_most_five_percent_of_labs(blocks: int, drawn: Any) -> None:
    """Blocks differ from one another by more than arms within a block do, as on a real machine."""
    rng = np.random.default_rng(20260712 + blocks)
    plan = lab_plan(claims={"1": {"say": "x", **RATIO, "outside": 0.01}, "2": {"say": "x", **RATIO, "above": 1.0}})
    claims = claims_of(plan, "labs")
    drift, noise = rng.normal(0.0, 0.1, (RUNS, blocks, 1)), 0.03 * drawn(rng, (RUNS, blocks, 2))
    held = {"1": 0, "2": 0}
    for values in np.exp(drift + noise):
        cells = Cells(of_blocks(list(values[:, 0]), list(values[:, 1])), {}, {})
        for name in held:
            held[name] += judged(claims[name], cells).verdict == "holds"
    assert held["1"] <= 0.05 * RUNS
    assert held["2"] <= 0.05 * RUNS


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0, 0, FAILS), (0, 1, UNDECIDED), (0.1, 1, HOLDS), (-1, 0, UNDECIDED)]
)
def test_what_is_at_its_limit_is_not_above_it(low: float, high: float, verdict: str) -> None:
    claim = Claim(id="x", say="more", effect="difference", terms=(), bound="above", limits=(0.0,), at={})
    assert verdict_of(claim, low, high) == verdict
