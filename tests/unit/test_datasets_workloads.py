"""Structured workloads share exactly what they are said to share, and traces keep times and lengths."""

from pathlib import Path
from typing import Any

import pytest

from memgap.datasets import Prompt, build_dataset, load_dataset, resolve_dataset, save_dataset
from memgap.datasets.derived import with_field
from memgap.datasets.spec import SHARED_PREFIX_KINDS
from memgap.errors import UserError

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:05.5000000,100,10
2023-11-16 18:17:03.9799600,374,44
2023-11-16 18:17:09.0000000,200,0
2023-11-16 18:17:04.9799600,9000,5
2023-11-16 18:17:06.9799600,50,7
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 3000, "input_length": 1300, "output_length": 26, "hash_ids": [46, 47, 49]}
"""


def spec(requests: int = 12, max_model_len: int | None = None, **entry: Any) -> dict[str, Any]:
    return resolve_dataset("d", {"d": entry}, requests=requests, vocabulary_size=8192, max_model_len=max_model_len)


def shared(a: Prompt, b: Prompt) -> int:
    """Return the length of the common start."""
    pairs = enumerate(zip(a.token_ids, b.token_ids, strict=False))
    return next((place for place, (x, y) in pairs if x != y), min(len(a.token_ids), len(b.token_ids)))


def test_prompts_share_the_prefix_of_their_group_and_no_more() -> None:
    prompts = build_dataset(
        spec(kind="shared-prefix", prefixes=3, prefix_tokens=40, prompt_tokens={"min": 5, "max": 9}, output_tokens=4)
    )
    assert {len(one.token_ids) - 40 for one in prompts} <= {5, 6, 7, 8, 9}
    assert sorted(one.group for one in prompts if one.group is not None) == [0] * 4 + [1] * 4 + [2] * 4
    for a in prompts:
        for b in prompts:
            if a is not b:
                assert shared(a, b) == (40 if a.group == b.group else 0)


def test_a_turn_holds_its_conversations_history() -> None:
    prompts = build_dataset(spec(kind="multi-turn", turns=3, prompt_tokens=10, output_tokens=6))
    assert [one.conversation for one in prompts] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [len(one.token_ids) for one in prompts] == [10, 26, 42] * 4
    assert all(shared(prompts[i], prompts[i + 1]) == len(prompts[i].token_ids) for i in (0, 1, 3, 4))
    assert shared(prompts[2], prompts[3]) == 0


def test_parts_come_by_weight() -> None:
    parts = [
        {"weight": 1, "prompt_tokens": 500, "output_tokens": 2},
        {"weight": 3, "prompt_tokens": {"min": 8, "max": 12}, "output_tokens": 30},
    ]
    prompts = build_dataset(spec(requests=400, kind="mixed", parts=parts))
    long = [one for one in prompts if one.group == 0]
    assert {len(one.token_ids) for one in long} == {500}
    assert {len(one.token_ids) for one in prompts if one.group == 1} == {8, 9, 10, 11, 12}
    assert 70 <= len(long) <= 130


@pytest.mark.parametrize(
    ("text", "times_s", "lengths"),
    [
        (AZURE, [0.0, 0.76, 1.5], [(374, 44), (100, 10), (50, 7)]),
        (BURST, [0.0, 20.0, 56.5], [(472, 18), (1087, 230), (417, 276)]),
    ],
)
def test_csv_traces(tmp_path: Path, text: str, times_s: list[float], lengths: list[tuple[int, int]]) -> None:
    (tmp_path / "t.csv").write_text(text)
    given = spec(3, kind="trace", path=str(tmp_path / "t.csv"), speed=2, max_prompt_tokens=2000)
    prompts = build_dataset(given)
    assert [one.due_s for one in prompts] == pytest.approx(times_s, abs=0.01)
    assert [(len(one.token_ids), one.output_tokens) for one in prompts] == lengths


def test_equal_hash_ids_are_equal_blocks(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(MOONCAKE)
    a, b = build_dataset(spec(2, kind="trace", path=str(tmp_path / "t.jsonl"), max_prompt_tokens=2000))
    assert (len(a.token_ids), len(b.token_ids)) == (1100, 1300)
    assert shared(a, b) == 1024
    assert (a.due_s, b.due_s) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no known columns"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2: not a time"),
        ('{"timestamp": 1}\n', "no known columns"),
        (AZURE, "3 usable rows of 5, but 4 requests"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UserError, match=message):
        build_dataset(spec(4, kind="trace", path=str(tmp_path / "t")))
    with pytest.raises(UserError, match="cannot be read"):
        build_dataset(spec(4, kind="trace", path=str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "multi-turn", "turns": 5, "prompt_tokens": 9, "output_tokens": 9}, "multiple of turns"),
        ({"kind": "multi-turn", "turns": 4, "prompt_tokens": 90, "output_tokens": 90}, "max-model-len is 512"),
        ({"kind": "mixed", "parts": []}, "at least two"),
        ({"kind": "mixed", "parts": [{"weight": 1}, {}]}, r"parts\[0\]"),
        ({"kind": "trace"}, "path"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec(12, 512, **entry)


def test_structure_is_stored(tmp_path: Path) -> None:
    given = spec(kind="multi-turn", turns=3, prompt_tokens=10, output_tokens=6)
    prompts = build_dataset(given)
    save_dataset(tmp_path / "d.npz", given, prompts)
    assert load_dataset(tmp_path / "d.npz").prompts == prompts


def test_kinds_that_share_prefixes_are_known() -> None:
    assert set(SHARED_PREFIX_KINDS) == {"shared-prefix", "multi-turn", "trace", "texts"}


def test_lengths_are_drawn_from_choices() -> None:
    drawn = {"choices": [16, 32, 256]}
    prompts = build_dataset(spec(requests=300, kind="random", prompt_tokens=8, output_tokens=drawn))
    outputs = [one.output_tokens for one in prompts]
    assert all(70 <= outputs.count(one) <= 130 for one in drawn["choices"]) and len(outputs) == 300
    assert prompts == build_dataset(spec(requests=300, kind="random", prompt_tokens=8, output_tokens=drawn))
    parts = [
        {"name": "short", "weight": 1, "prompt_tokens": 8, "output_tokens": drawn},
        {"weight": 1, "prompt_tokens": {"choices": [64, 128]}, "output_tokens": 2},
    ]
    mixed = build_dataset(spec(requests=300, kind="mixed", parts=parts))
    assert {one.output_tokens for one in mixed if one.group == 0} == {16, 32, 256}
    assert {len(one.token_ids) for one in mixed if one.group == 1} == {64, 128}
    with pytest.raises(UserError, match="different names"):
        spec(kind="mixed", parts=[parts[0], parts[0]])
    with pytest.raises(UserError, match="in `choices`"):
        spec(kind="random", prompt_tokens=8, output_tokens={"choices": [0]})


def test_a_prefix_of_no_tokens_leaves_the_rest_as_it_is() -> None:
    entry = {"kind": "shared-prefix", "prefixes": 3, "prompt_tokens": 9, "output_tokens": 4}
    without, with_some = (build_dataset(spec(**entry, prefix_tokens=length)) for length in (0, 40))
    assert [one.token_ids for one in without] == [one.token_ids[40:] for one in with_some]
    assert not any(shared(a, b) for a in without for b in without if a is not b)


def test_a_field_of_a_dataset_can_be_an_axis() -> None:
    entry = {"kind": "shared-prefix", "prefixes": 3, "prefix_tokens": 8, "prompt_tokens": 9, "output_tokens": 4}
    name, changed = with_field("docs", entry, "prefix_tokens", 0)
    assert (name, changed) == ("docs-prefix_tokens-0", {**entry, "prefix_tokens": 0})
    assert entry["prefix_tokens"] == 8
    mixed = {"kind": "mixed", "parts": [{"weight": 1}, {"weight": 2}]}
    name, changed = with_field("m", mixed, "parts.1.weight", 5)
    assert (name, changed["parts"]) == ("m-parts.1.weight-5", [{"weight": 1}, {"weight": 5}])
    drawn, _ = with_field("d" * 64, entry, "output_tokens", {"choices": [1, 2]})
    assert len(drawn) == 64 and drawn != with_field("d" * 64, entry, "output_tokens", {"choices": [1, 3]})[0]
    with pytest.raises(UserError, match=r"datasets\.m: there is no field 'parts\.7\.weight'"):
        with_field("m", mixed, "parts.7.weight", 1)
