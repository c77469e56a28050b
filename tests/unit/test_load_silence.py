"""A server that stood still is told from one that reads prompts, waits for requests, or is heard by a client that stood
still itself."""

import dataclasses

import numpy as np
import pytest

from memgap.load.records import ClientHealth, LoadResult, RequestResult, TokenEvents
from memgap.load.silence import silence_summary

HEALTH = ClientHealth(1.0, 5.0, 0.1, None, None, 0, 0, 0, 0.0, "asyncio")


def load(*requests: tuple[float, list[float], int]) -> LoadResult:
    """Return the result of requests, each with its send, the times of its tokens and its prompt's length."""
    results = [
        RequestResult(
            index, 0, None, sent, times[0], times[-1], times[-1], prompt, prompt, len(times), len(times), len(times)
        )
        for index, (sent, times, prompt) in enumerate(requests)
    ]
    for one in results:
        one.status = "ok"
    events = TokenEvents(
        np.concatenate([np.full(len(times), index, np.int32) for index, (_, times, _) in enumerate(requests)]),
        np.concatenate([np.asarray(times) for _, times, _ in requests]),
        np.concatenate([np.ones(len(times), np.int32) for _, times, _ in requests]),
    )
    end_s = max(times[-1] for _, times, _ in requests)
    return LoadResult(results, events, [], 0.0, 0.0, end_s, "token_ids", HEALTH)


def steps(start: float, count: int, pause_after: int = -1, pause_s: float = 0.0) -> list[float]:
    """Return the times of tokens 20 ms apart, with a pause after one of them."""
    return [start + 0.02 * index + (pause_s if 0 <= pause_after < index else 0.0) for index in range(count)]


def test_a_steady_server_has_no_silence() -> None:
    assert silence_summary(load((0.0, steps(0.1, 300), 10), (0.0, steps(0.105, 300), 10))) == {}


def test_a_server_that_stood_still_is_found() -> None:
    found = silence_summary(load((0.0, steps(0.1, 300, 150, 1.2), 10), (0.0, steps(0.105, 300, 150, 1.2), 10)))
    assert found["silence_max_s"] == pytest.approx(1.2, abs=0.03)
    assert found["silence_bound_s"] == 0.5


def test_a_client_that_stood_still_is_not_the_server() -> None:
    stopped = load((0.0, steps(0.1, 300, 150, 1.2), 10))
    held = dataclasses.replace(stopped, health=dataclasses.replace(HEALTH, loop_lag_max_ms=1190.0))
    assert silence_summary(held) == {}


def test_nothing_in_flight_is_no_silence() -> None:
    assert silence_summary(load((0.0, steps(0.1, 50), 10), (4.0, steps(4.1, 50), 10))) == {}


def test_prompts_being_read_are_no_silence_but_a_stop_while_they_are_is() -> None:
    short = [(0.02 * index, steps(0.02 * index + 0.1, 40), 100) for index in range(20)]
    long = (1.0, steps(4.0, 40), 3000)  # 1 ms a prompt token, as for the others
    reading = (0.0, steps(0.1, 300, 46, 2.95), 100)
    assert silence_summary(load(reading, long, *short)) == {}
    stopped = (1.0, steps(4.0, 40), 100)
    found = silence_summary(load(reading, stopped, *short))
    assert found["silence_max_s"] > 2.5


def test_pauses_that_are_usual_are_the_engine() -> None:
    slow = [0.1 + 0.8 * index for index in range(40)]
    assert silence_summary(load((0.0, slow, 10))) == {}


def test_a_queue_of_prompts_explains_nothing() -> None:
    running = (0.0, steps(0.1, 300, 150, 1.2), 10)
    queued = [(0.0, steps(7.5 + index, 40), 4000) for index in range(20)]
    assert silence_summary(load(running, *queued))["silence_max_s"] == pytest.approx(1.2, abs=0.03)
