"""From a config's dataset entry to its full description and key."""

from typing import Any

import pytest

from memgap.canonical import canonical_json
from memgap.datasets import resolve_dataset
from memgap.datasets.spec import spec_fits_key
from memgap.errors import UserError
from memgap.models import resolve_model

TOKENIZER = {"tokenizer": "/models/opt"}


def resolve(entry: object, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"requests": 100, "vocabulary_size": 8192} | changes
    return resolve_dataset("chat", {"chat": entry}, **options)


def test_the_description_is_complete_and_keyed() -> None:
    spec = resolve({"kind": "sharegpt-like"})
    assert spec == {
        "name": "chat",
        "kind": "sharegpt-like",
        "generator": 1,
        "requests": 100,
        "vocabulary_size": 8192,
        "seed": 0,
        "mean_prompt_tokens": 161.0,
        "mean_output_tokens": 338.0,
        "sigma_prompt": 1.3,
        "sigma_output": 0.9,
        "min_prompt_tokens": 4,
        "min_output_tokens": 4,
        "max_prompt_tokens": 1024,
        "max_total_tokens": 2048,
        "key": spec["key"],
    }
    assert spec_fits_key(spec)
    assert canonical_json(spec)


def test_the_key_follows_the_content_and_not_the_name() -> None:
    first = resolve_dataset("a", {"a": {"kind": "random", "prompt_tokens": 8, "output_tokens": 8}}, **sizes())
    same = resolve_dataset(
        "b",
        {"b": {"kind": "random", "prompt_tokens": {"min": 8, "max": 8}, "output_tokens": 8, "seed": 0}},
        **sizes(),
    )
    assert first["key"] == same["key"]
    for change in ({"requests": 11}, {"vocabulary_size": 101}):
        other = resolve_dataset(
            "a", {"a": {"kind": "random", "prompt_tokens": 8, "output_tokens": 8}}, **(sizes() | change)
        )
        assert other["key"] != first["key"]
    assert not spec_fits_key(first | {"seed": 1})


def sizes() -> dict[str, Any]:
    return {"requests": 10, "vocabulary_size": 100}


def test_whole_numbers_and_floats_give_one_key() -> None:
    assert (
        resolve({"kind": "sharegpt-like", "mean_prompt_tokens": 100})["key"]
        == resolve({"kind": "sharegpt-like", "mean_prompt_tokens": 100.0})["key"]
    )


def test_the_server_limit_lowers_the_total() -> None:
    assert resolve({"kind": "sharegpt-like"}, max_model_len=1024)["max_total_tokens"] == 1024
    assert resolve({"kind": "sharegpt-like"}, max_model_len=8192)["max_total_tokens"] == 2048


def test_real_text_takes_the_tokenizer_of_the_model() -> None:
    hub = resolve({"kind": "sharegpt"}, model=resolve_model("opt-1.3b"))
    assert hub["tokenizer"]["hub_id"] == "facebook/opt-1.3b"
    assert hub["hub_file"] == "ShareGPT_V3_unfiltered_cleaned_split.json"
    assert hub["token_ids"] == "text"
    own = resolve(
        {"kind": "sharegpt", "path": "/data/sharegpt.json"},
        model=resolve_model("mine", {"mine": {"base": "opt-1.3b", "path": "/models/opt"}}),
    )
    assert own["tokenizer"] == {"path": "/models/opt", "hub_id": None, "revision": None}
    assert (own["path"], own["hub_id"], own["revision"]) == ("/data/sharegpt.json", None, None)


def test_synthetic_models_keep_only_the_lengths_of_real_text() -> None:
    model = resolve_model("tiny-opt")
    with pytest.raises(UserError, match="tokenizer is missing"):
        resolve({"kind": "sharegpt"}, model=model)
    assert resolve({"kind": "sharegpt", **TOKENIZER}, model=model)["token_ids"] == "random"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("sharegpt-like", ["mapping"]),
        ({}, ["kind is missing"]),
        ({"kind": "alpaca"}, ["kind is 'alpaca'", "sharegpt-like"]),
        ({"kind": "random", "prompt_token": 8}, ["'prompt_token'", "did you mean prompt_tokens"]),
        ({"kind": "random", "prompt_tokens": 8}, ["output_tokens is missing"]),
        (
            {"kind": "random", "prompt_tokens": {"min": 9, "max": 8}, "output_tokens": 1},
            ["max is 8", "at least 9"],
        ),
        ({"kind": "random", "prompt_tokens": 0, "output_tokens": 1}, ["prompt_tokens is 0"]),
        ({"kind": "random", "prompt_tokens": 1000, "output_tokens": 25}, ["1025 tokens", "1024"]),
        ({"kind": "sharegpt-like", "seed": -1}, ["seed is -1"]),
        ({"kind": "sharegpt-like", "sigma_prompt": 0}, ["sigma_prompt is 0"]),
        (
            {"kind": "sharegpt-like", "mean_prompt_tokens": 2000},
            ["mean_prompt_tokens is 2000", "between 4 and"],
        ),
        ({"kind": "sharegpt-like", "mean_output_tokens": 900}, ["add up to 1061", "1024"]),
        (
            {"kind": "sharegpt-like", "max_total_tokens": 2048},
            ["max_total_tokens is 2048", "max-model-len of 1024"],
        ),
        ({"kind": "sharegpt-like", "max_total_tokens": 7}, ["max_total_tokens is 7", "8 tokens"]),
        ({"kind": "sharegpt-like", "max_prompt_tokens": 3}, ["max_prompt_tokens is 3"]),
        ({"kind": "sharegpt", "path": "a", "hub_id": "b", **TOKENIZER}, ["path and hub_id"]),
        ({"kind": "sharegpt", "hub_id": "someone/else", **TOKENIZER}, ["revision is missing"]),
        ({"kind": "sharegpt", "token_ids": "real", **TOKENIZER}, ["token_ids is 'real'"]),
        ({"kind": "sharegpt", "tokenizer": {"path": "a", "hub_id": "b"}}, ["path and a hub repository"]),
        ({"kind": "sharegpt", "tokenizer": {"hub_id": "b"}}, ["revision is missing"]),
    ],
)
def test_bad_entries_are_refused_in_one_sentence(entry: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve(entry, max_model_len=1024)
    message = str(caught.value)
    assert message.startswith("datasets.chat")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_names_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"'chat' .*did you mean chats"):
        resolve_dataset("chat", {"chats": {"kind": "sharegpt-like"}}, **sizes())
    with pytest.raises(UserError, match="0 requests"):
        resolve({"kind": "sharegpt-like"}, requests=0)
    with pytest.raises(UserError, match="vocabulary of 12"):
        resolve({"kind": "sharegpt-like"}, vocabulary_size=12)
    with pytest.raises(UserError, match="too short"):
        resolve({"kind": "random", "prompt_tokens": 1, "output_tokens": 1}, requests=5000, vocabulary_size=1000)
    with pytest.raises(UserError, match="datasets: "):
        resolve_dataset("chat", ["chat"], **sizes())  # type: ignore[arg-type]
