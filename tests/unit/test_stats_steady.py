"""The steady part is found on runs whose steady part is known."""

import numpy as np
import pytest

from memgap.load.records import ClientHealth, LoadResult, RequestResult, TokenEvents
from memgap.stats.series import BATCHES, interval_so_far, mser
from memgap.stats.steady import steady, steady_summary

HEALTH = ClientHealth(1.0, 1.0, 0.1, None, None, 1, 1, 1, 0.0, "uvloop")


def result(rates: list[tuple[float, float]], sent_s: float) -> LoadResult:
    """Return a run of one-token events: (seconds, tokens a second) after one another; the last send at `sent_s`."""
    times, begin = [], 0.0
    for seconds, rate in rates:
        times.append(begin + (np.arange(round(seconds * rate)) + 0.5) / rate)
        begin += seconds
    time_s = np.concatenate(times)
    events = TokenEvents(np.zeros(len(time_s), np.int32), time_s, np.ones(len(time_s), np.int32))
    one = RequestResult(0, 0, sent_s=sent_s, first_token_s=0.0, last_token_s=begin, output_tokens_seen=len(time_s))
    one.status = "ok"
    return LoadResult([one], events, [], 0.0, 0.0, begin, "token_ids", HEALTH)


def test_ramp_and_tail_are_cut() -> None:
    found = steady_summary(result([(2, 100), (1, 400), (15, 1000), (4, 50)], sent_s=18.0), "closed", [])
    assert found["steady_start_s"] == pytest.approx(3.0, abs=0.9)
    assert found["steady_end_s"] == 18.0
    assert found["steady_share_fraction"] == pytest.approx(15 / 22, abs=0.05)
    assert found["steady_output_throughput_tok_s"] == pytest.approx(1000, rel=0.005)
    assert found["steady_itl_mean_ms"] == pytest.approx(1.0, rel=0.01)
    assert steady(found)


def test_the_mean_of_running_requests_is_that_of_the_steady_part() -> None:
    rows = [{"time_s": t / 2, "num_requests_running": 8.0 if 3 <= t / 2 <= 18 else 1.0} for t in range(44)]
    found = steady_summary(result([(3, 100), (15, 1000), (4, 50)], sent_s=18.0), "closed", rows)
    assert found["steady_mean_running_reqs"] == pytest.approx(8.0)


def test_a_run_that_keeps_growing_is_not_steady() -> None:
    found = steady_summary(result([(1, 100.0 + 40 * step) for step in range(20)], sent_s=20.0), "closed", [])
    assert found["steady_drift_fraction"] > 0.1
    assert not steady(found)


def test_a_run_that_is_all_tail_has_no_steady_part() -> None:
    found = steady_summary(result([(1, 1000), (9, 100)], sent_s=0.5), "closed", [])
    assert found["steady_share_fraction"] < 0.2
    assert "steady_output_throughput_tok_s" not in found
    assert not steady(found)
    assert steady_summary(result([(1, 1000)], sent_s=0.0), "closed", []) == {}


def test_the_interval_covers_the_true_rate_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        batches = rng.normal(1000, 50, 20 * BATCHES).reshape(BATCHES, 20)
        run = result([(0.1, max(rate, 10.0)) for rate in batches.ravel()], sent_s=20.0)
        found = steady_summary(run, "closed", [])
        half = found["steady_output_throughput_ci95_fraction"] * found["steady_output_throughput_tok_s"]
        covered += abs(found["steady_output_throughput_tok_s"] - 1000) <= half
    assert 0.88 <= covered / 200 <= 0.99


def test_mser_keeps_a_series_without_a_transient() -> None:
    assert mser(np.full(50, 7.0)) == 0
    assert mser(np.array([1.0, 2.0])) == 0
    assert mser(np.concatenate([np.zeros(10), np.full(40, 5.0)])) == 10


def seats_run(cap: int, count: int, seed: int = 1, step_s: float = 0.01) -> LoadResult:
    """Return a closed loop on an engine that makes a token for each of its requests in every step."""
    lengths = np.maximum(1, np.random.default_rng(seed).lognormal(3.0, 0.8, count).astype(int))
    free = [0] * cap
    results, request, time_s = [], [], []
    for index, length in enumerate(lengths.tolist()):
        seat = int(np.argmin(free))
        begin = free[seat]
        free[seat] = begin + length
        steps = (begin + 1 + np.arange(length)) * step_s
        one = RequestResult(index, 0, None, begin * step_s, float(steps[0]), float(steps[-1]), float(steps[-1]))
        one.prompt_tokens_asked, one.output_tokens_asked, one.output_tokens_seen, one.status = 20, length, length, "ok"
        results.append(one)
        request.append(np.full(length, index, np.int32))
        time_s.append(steps)
    events = TokenEvents(np.concatenate(request), np.concatenate(time_s), np.ones(int(lengths.sum()), np.int32))
    return LoadResult(results, events, [], 0.0, 0.0, max(free) * step_s, "token_ids", HEALTH)


@pytest.mark.parametrize("cap", [1, 4, 16, 64, 256])
def test_the_steady_throughput_does_not_depend_on_how_many_requests_there_were(cap: int) -> None:
    rates = []
    for per_seat in (6, 12, 24):
        run = seats_run(cap, max(cap * per_seat, 20))
        found = steady_summary(run, "closed", [], cap)
        rates.append(found["steady_output_throughput_tok_s"])
        assert found["seats_taken_fraction"] == pytest.approx(1.0, abs=0.01)
        assert found["window_seats_taken_fraction"] < 1.01
    assert rates == pytest.approx([cap / 0.01] * 3, rel=0.01)


def test_a_run_of_two_requests_a_seat_has_no_steady_part() -> None:
    found = steady_summary(seats_run(64, 128), "closed", [], 64)
    assert found["steady_share_fraction"] < 0.2
    assert found["seats_taken_fraction"] == found["window_seats_taken_fraction"] < 0.8


def test_latencies_of_the_steady_part_have_percentiles_and_intervals() -> None:
    found = steady_summary(seats_run(16, 400), "closed", [], 16)
    assert found["steady_itl_mean_ms"] == pytest.approx(10.0)
    assert found["steady_itl_p99_ms"] == pytest.approx(10.0)
    assert found["steady_ttft_mean_ms"] == pytest.approx(10.0)
    assert found["steady_itl_mean_ci95_fraction"] == pytest.approx(0.0, abs=1e-9)
    assert 0 < found["steady_e2e_mean_ci95_fraction"] < 0.3
    assert "steady_e2e_p99_ci95_fraction" not in found  # some ten replies a batch have no 99th percentile
    ratio = found["steady_total_throughput_tok_s"] / found["steady_output_throughput_tok_s"]
    run = seats_run(16, 400)
    assert ratio == pytest.approx(1 + 400 * 20 / sum(one.output_tokens_seen for one in run.results))


def test_the_interval_of_a_run_that_goes_on_narrows() -> None:
    rng = np.random.default_rng(2)
    counts = np.concatenate([np.zeros(30), rng.normal(100, 20, 2000)])
    assert interval_so_far(counts[:10], 0) == float("inf")
    short, long = interval_so_far(counts[:200], 0), interval_so_far(counts, 0)
    assert 0 < long < short < 0.1
    assert interval_so_far(counts[:200], 195) == float("inf")
