"""Speculation as engines count it: accepted length, share and positions between two metrics pages."""

import math

import pytest

from memgap.engine.prometheus import parse_page
from memgap.engine.speculation import speculation_summary


def page(drafts: int, drafted: int, accepted: int, *by_position: int) -> str:
    lines = [
        f'vllm:spec_decode_num_drafts_total{{engine="0"}} {drafts}',
        f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {drafted}',
        f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}',
    ]
    for position, number in enumerate(by_position):
        name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
        lines.append(f'{name}{{engine="0",position="{position}"}} {number}')
    return "\n".join([*lines, ""])


def test_what_was_accepted_in_a_window_is_that_of_the_window() -> None:
    before, after = page(100, 300, 10, 8, 2, 0), page(300, 900, 450, 168, 122, 160)
    found = speculation_summary(parse_page(before), parse_page(after))
    assert (found["spec_drafts"], found["spec_draft_tokens"], found["spec_accepted_tokens"]) == (200, 600, 440)
    assert found["spec_accepted_fraction"] == pytest.approx(440 / 600)
    assert found["spec_length_mean"] == pytest.approx(1 + 440 / 200)
    positions = [found[f"spec_accepted_at_{position}_fraction"] for position in range(3)]
    assert positions == [160 / 200, 120 / 200, 160 / 200]


def test_the_first_draft_may_come_in_the_window_and_none_says_nothing() -> None:
    nothing, some = parse_page("vllm:num_requests_running 1\n"), parse_page(page(10, 30, 15))
    assert speculation_summary(nothing, some)["spec_length_mean"] == 2.5
    assert speculation_summary(nothing, nothing) == speculation_summary(some, some) == {}
    assert speculation_summary(some, parse_page(page(5, 15, 5))) == {}, "a server that was started again"


def test_averages_of_an_engine_are_taken_as_they_are() -> None:
    said = parse_page("sglang:spec_accept_length 2.75\nsglang:spec_accept_rate 0.58\n")
    assert speculation_summary({}, said) == {"spec_length_mean": 2.75, "spec_accepted_fraction": 0.58}
    assert not any(map(math.isnan, speculation_summary({}, parse_page("sglang:spec_accept_length NaN\n")).values()))
