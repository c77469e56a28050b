"""How often B_opt stays the same under the intervals, where the answer is known."""

from typing import Any

import numpy as np
import pytest

from memgap.advisor.bca import Profile
from memgap.advisor.report import advice_for, write_advice
from memgap.advisor.stability import _draw, stability
from memgap.config.load import check_config
from memgap.stats.intervals import Interval, mean_interval, within_run_interval
from memgap.tables.pages import advice_page
from memgap.tables.points import as_table
from tests.support.records import small_config


def cap(batch_cap: int, throughputs_tok_s: list[float], latencies_ms: list[float]) -> Profile:
    """Return a cap with these repeats."""
    return Profile(
        batch_cap,
        float(np.mean(throughputs_tok_s)),
        float(np.mean(latencies_ms)),
        runs=tuple(zip(throughputs_tok_s, latencies_ms, strict=True)),
        throughput_interval=mean_interval(throughputs_tok_s),
        latency_interval=mean_interval(latencies_ms),
    )


def quiet(batch_cap: int, throughput_tok_s: float, latency_ms: float, repeats: int = 3) -> Profile:
    """Return a cap whose repeats differ by 0.1 %."""
    factors = [1 + 0.001 * (i - (repeats - 1) / 2) for i in range(repeats)]
    return cap(batch_cap, [throughput_tok_s * one for one in factors], [latency_ms * one for one in factors])


@pytest.mark.parametrize("repeats", [3, 6])
def test_clear_differences_give_the_same_answer_in_nearly_all_draws(repeats: int) -> None:
    profile = [quiet(1, 100, 5, repeats), quiet(8, 600, 10, repeats), quiet(32, 1500, 20, repeats)]
    found = stability(profile, {"ms": 15}, 0.1)
    assert found.same_fraction is not None
    assert found.same_fraction > 0.99
    assert found.sentence.startswith("B_opt = 8 in ")
    assert found.draws == 1000
    assert found.notes == []


def test_equal_caps_share_the_draws() -> None:
    noise = [-20.0, 5.0, 15.0]
    profile = [quiet(1, 100, 5), *(cap(b, [1000 + x for x in noise], [9.0, 9.1, 9.2]) for b in (96, 128))]
    found = stability(profile, {"ms": 50}, 0.01)
    shares = {one.batch_cap: one for one in found.caps}
    assert shares[96].chosen_fraction == pytest.approx(0.5, abs=0.05)
    assert shares[128].chosen_fraction == pytest.approx(0.5, abs=0.05)
    assert shares[96].feasible_fraction > 0.95
    assert found.sentence.startswith("B_opt = 96 in ")
    assert "another cap has more throughput in " in found.sentence


@pytest.mark.parametrize("repeats", [3, 10])
def test_a_latency_on_the_bound_misses_it_in_half_of_the_draws(repeats: int) -> None:
    spread = np.linspace(-1, 1, repeats)
    profile = [quiet(1, 100, 5), quiet(8, 600, 8), cap(32, [1500.0 + x for x in spread], [20.0 - x for x in spread])]
    found = stability(profile, {"ms": 20.0000001}, 0.01)
    assert found.same_fraction == pytest.approx(0.5, abs=0.05)
    assert "cap 32 misses a bound in" in found.sentence
    assert found.none_fraction == 0.0


def test_the_bound_moves_with_the_latency_that_it_is_a_multiple_of() -> None:
    profile = [cap(1, [100.0, 100.1, 100.2], [8.0, 10.0, 12.0]), Profile(8, 600.0, 19.0)]
    found = stability(profile, {"multiple": 2.0, "times_latency_at": 1}, 0.1)
    assert found.same_fraction is not None
    assert 0.5 < found.same_fraction < 0.8


def test_repeats_of_a_cap_keep_their_correlation() -> None:
    three = cap(8, [90.0, 100.0, 110.0], [11.0, 10.0, 9.0])
    five = cap(8, [90.0, 95.0, 100.0, 105.0, 110.0], [11.0, 10.5, 10.0, 9.5, 9.0])
    for one in (three, five):
        drawn = _draw(one, 500, np.random.default_rng(1))
        np.testing.assert_allclose(drawn[:, 0] - 100, 10 * (10 - drawn[:, 1]))
        assert (drawn >= 0).all()


@pytest.mark.parametrize("repeats", [2, 3, 4, 5, 8])
def test_draws_lie_inside_the_interval_as_often_as_it_says(repeats: int) -> None:
    values = list(1000 + 10 * np.random.default_rng(3).standard_normal(repeats))
    one = cap(8, values, values)
    assert one.throughput_interval is not None
    drawn = _draw(one, 20_000, np.random.default_rng(4))[:, 0]
    inside = ((drawn >= one.throughput_interval.low) & (drawn <= one.throughput_interval.high)).mean()
    assert inside == pytest.approx(0.95, abs=0.02)


def test_one_run_is_drawn_from_its_batch_means() -> None:
    one = Profile(8, 1000.0, 10.0, "", ((1000.0, 10.0),), within_run_interval(1000.0, 0.05))
    drawn = _draw(one, 20_000, np.random.default_rng(4))
    assert ((drawn[:, 0] >= 950) & (drawn[:, 0] <= 1050)).mean() == pytest.approx(0.95, abs=0.01)
    assert (drawn[:, 1] == 10.0).all()


def test_wild_repeats_give_no_negative_draws() -> None:
    found = stability([cap(1, [1.0, 199.0], [0.1, 20.0]), cap(2, [1.0, 300.0], [0.1, 30.0])], {"ms": 50}, 0.1)
    assert sum(one.chosen_fraction for one in found.caps) + (found.none_fraction or 0) == pytest.approx(1.0)
    assert "Two repeats at cap 1, 2" in found.notes[0]


def test_equal_arguments_give_equal_results_and_the_order_of_caps_does_not_count() -> None:
    profile = [quiet(1, 100, 5), cap(8, [600.0, 610.0, 640.0], [9.0, 10.0, 11.0]), quiet(16, 620, 10)]
    found = stability(profile, {"ms": 10}, 0.1)
    assert found == stability(profile[::-1], {"ms": 10}, 0.1)
    assert found != stability(profile, {"ms": 10}, 0.1, seed=1)


def test_without_any_interval_nothing_is_claimed() -> None:
    found = stability([Profile(1, 100.0, 5.0), Profile(2, 180.0, 6.0)], {"ms": 10}, 0.1)
    assert found.same_fraction is None
    assert found.caps == []
    assert "cannot be said" in found.sentence
    assert "at cap 1, 2, measured once" in found.notes[0]
    assert stability([], {"ms": 1}, 0.1).same_fraction is None


def test_caps_without_an_interval_are_named_and_excluded_ones_stay_out() -> None:
    half = Interval(170.0, 190.0, "within one run, batch means, 95 %")
    profile = [
        quiet(1, 100, 5),
        Profile(2, 180.0, 6.0, throughput_interval=half),
        Profile(4, 300.0, 8.0),
        Profile(8, None, None, "not measured: oom"),
    ]
    found = stability(profile, {"ms": 10}, 0.1)
    assert [one.batch_cap for one in found.caps] == [1, 2, 4]
    assert found.notes == [
        "No interval is known of throughput and latency at cap 4, measured once: they are taken as exact.",
        "At cap 2, measured once, the throughput's interval is from within the run, without the differences between "
        "runs, and none is known of the latency: it is taken as exact.",
    ]


def test_no_answer_can_be_stable_too() -> None:
    found = stability([quiet(1, 100, 5), quiet(2, 150, 6)], {"ms": 1.0}, 0.1)
    assert found.same_fraction == 1.0
    assert found.sentence == "B_opt = none in all of 1,000 draws."


def rows(caps: list[int], repeats: int) -> list[dict[str, Any]]:
    """Return table rows of one model whose repeats differ by 1 %."""
    base = {"model": "m", "status": "ok", "flags": "", "device": "cpu", "server_args": "{}"}
    return [
        {
            **base,
            "batch_cap": one,
            "repeat": i,
            "itl_mean_ms": 5.0 + one + 0.1 * i,
            "total_throughput_tok_s": 100.0 * one**0.8 * (1 + 0.01 * i),
        }
        for one in caps
        for i in range(repeats)
    ]


def test_the_advice_and_its_page_say_how_sure_it_is() -> None:
    settings = check_config(small_config())["advisor"]
    advice = advice_for(as_table(rows([1, 2, 4], 3)), "m", settings)
    assert advice["stability"]["same_fraction"] > 0.9
    assert advice["stability"]["sentence"].startswith("B_opt = 4 in ")
    first = advice["candidates"][0]
    assert first["throughput_tok_s"] == pytest.approx(101.0)
    assert first["throughput_tok_s_low"] == pytest.approx(101 - 4.302653 / 3**0.5, rel=1e-5)
    assert first["latency_ms_high"] == pytest.approx(6.1 + 0.4302653 / 3**0.5, rel=1e-5)
    assert (first["repeats"], first["interval_source"]) == (3, "3 repeats, Student t, 95 %")
    assert "same_fraction:" in write_advice(advice)
    page = advice_page(advice)
    assert "How sure" in page
    assert "chosen_fraction" in page
    once = advice_page(advice_for(as_table(rows([1, 2], 1)), "m", settings))
    assert "cannot be said" in once
    assert "chosen_fraction" not in once
