"""Prompts built from a description, stored and read back."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.datasets import (
    Prompt,
    build_dataset,
    dataset_path,
    load_dataset,
    resolve_dataset,
    save_dataset,
    source_files,
    warmup_prompts,
)
from memgap.datasets.files import sidecar_path, statistics_of
from memgap.datasets.spec import RESERVED_IDS, WARMUP_RESERVE
from memgap.errors import UserError
from memgap.models.synthetic import tokenizer_json

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "make_dataset.py"


def resolve(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"requests": 64, "vocabulary_size": 8192} | changes
    return resolve_dataset("chat", {"chat": entry}, **options)


def sharegpt_like(requests: int = 64, **fields: Any) -> dict[str, Any]:
    return resolve({"kind": "sharegpt-like", **fields}, requests=requests)


def fixed(prompt: object = 16, output: object = 8, **changes: Any) -> dict[str, Any]:
    return resolve({"kind": "random", "prompt_tokens": prompt, "output_tokens": output}, **changes)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize(
    ("requests", "fields"),
    [
        (500, {}),
        (2000, {}),
        (500, {"max_total_tokens": 1024}),
        (500, {"mean_prompt_tokens": 64, "mean_output_tokens": 64, "max_total_tokens": 512}),
        (500, {"sigma_prompt": 0.1, "sigma_output": 0.1}),
    ],
)
def test_realised_means_are_within_two_percent(requests: int, fields: dict[str, Any], seed: int) -> None:
    spec = sharegpt_like(requests, seed=seed, **fields)
    realised = statistics_of(build_dataset(spec))
    assert realised["requests"] == requests
    assert realised["prompt_tokens"]["mean"] == pytest.approx(spec["mean_prompt_tokens"], rel=0.02)
    assert realised["output_tokens"]["mean"] == pytest.approx(spec["mean_output_tokens"], rel=0.02)


def test_every_request_keeps_within_the_limits() -> None:
    for prompt in build_dataset(sharegpt_like(1000, max_total_tokens=900, max_prompt_tokens=600)):
        assert 4 <= len(prompt.token_ids) <= 600
        assert prompt.output_tokens >= 4
        assert len(prompt.token_ids) + prompt.output_tokens <= 900


@pytest.mark.parametrize("requests", [1, 2, 8])
def test_small_datasets_work_too(requests: int) -> None:
    assert len(build_dataset(sharegpt_like(requests))) == requests


def test_means_that_the_limits_forbid_are_refused() -> None:
    spec = sharegpt_like(500, max_total_tokens=520)
    with pytest.raises(UserError, match="161 prompt and 338 output tokens cannot be met"):
        build_dataset(spec)


def test_random_lengths_are_fixed_or_fill_their_range() -> None:
    assert {(len(p.token_ids), p.output_tokens) for p in build_dataset(fixed())} == {(16, 8)}
    ranged = build_dataset(fixed({"min": 3, "max": 5}, {"min": 1, "max": 2}, requests=500))
    assert {len(p.token_ids) for p in ranged} == {3, 4, 5}
    assert {p.output_tokens for p in ranged} == {1, 2}


def test_equal_descriptions_give_equal_prompts_and_seeds_differ() -> None:
    assert build_dataset(sharegpt_like(seed=3)) == build_dataset(sharegpt_like(seed=3))
    assert build_dataset(sharegpt_like(seed=3)) != build_dataset(sharegpt_like(seed=4))


def test_the_streams_stay_as_they_are() -> None:
    """A change here changes stored datasets: raise memgap.datasets.spec.GENERATOR with it."""
    first = build_dataset(fixed(4, requests=2))[0].token_ids
    lengths = [len(prompt.token_ids) for prompt in build_dataset(sharegpt_like(4))]
    assert (first, lengths) == (FIRST_IDS, FIRST_LENGTHS)


FIRST_IDS = [6098, 6228, 2793, 7738]
FIRST_LENGTHS = [49, 270, 177, 148]


@pytest.mark.parametrize(
    ("requests", "vocabulary_size", "start"), [(64, 8192, 1), (2000, 8192, 1), (500, 100, 2), (2000, 32, 4)]
)
def test_no_two_prompts_share_a_start(requests: int, vocabulary_size: int, start: int) -> None:
    spec = fixed(16, requests=requests, vocabulary_size=vocabulary_size)
    prompts = build_dataset(spec, vocabulary_size) + warmup_prompts(spec, vocabulary_size, WARMUP_RESERVE)
    starts = {tuple(prompt.token_ids[:start]) for prompt in prompts}
    assert len(starts) == requests + WARMUP_RESERVE
    ids = np.concatenate([prompt.token_ids for prompt in prompts])
    assert ids.min() >= RESERVED_IDS
    assert ids.max() < vocabulary_size


def test_warm_up_prompts_repeat_and_are_short() -> None:
    spec = sharegpt_like()
    assert warmup_prompts(spec, 8192, 3) == warmup_prompts(spec, 8192, 3)
    assert warmup_prompts(spec, 8192, 0) == []
    assert {(len(p.token_ids), p.output_tokens) for p in warmup_prompts(spec, 8192, 3)} == {(161, 32)}
    assert warmup_prompts(fixed(16, 8), 8192, 1)[0].output_tokens == 8
    measured = build_dataset(spec)
    lengths = [len(one.token_ids) for one in warmup_prompts(spec, 8192, 5, measured)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (
        min(len(one.token_ids) for one in measured),
        max(len(one.token_ids) for one in measured),
    )
    with pytest.raises(UserError, match="257 warm-up requests"):
        warmup_prompts(spec, 8192, WARMUP_RESERVE + 1)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="8192 ids, but the model has 100"):
        build_dataset(fixed(), 100)
    with pytest.raises(UserError, match="8192 ids, but the model has 100"):
        warmup_prompts(fixed(), 100, 1)


def stored(folder: Path) -> Path:
    spec = fixed({"min": 4, "max": 9}, requests=20)
    path = dataset_path(folder, spec)
    save_dataset(path, spec, build_dataset(spec))
    return path


def test_a_stored_dataset_reads_back_as_it_was(tmp_path: Path) -> None:
    path = stored(tmp_path)
    spec = fixed({"min": 4, "max": 9}, requests=20)
    assert path.name == f"{spec['key']}.npz"
    dataset = load_dataset(path)
    assert dataset.spec == spec
    assert dataset.prompts == build_dataset(spec)
    assert dataset.statistics == statistics_of(dataset.prompts)
    assert dataset.sources == []
    with np.load(path, allow_pickle=False) as arrays:
        assert (arrays["prompt_ids"].dtype, arrays["output_tokens"].dtype) == (np.int32, np.int32)


def test_equal_datasets_give_equal_bytes(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert sidecar_path(first).read_bytes() == sidecar_path(second).read_bytes()


def test_statistics_are_in_tokens() -> None:
    realised = statistics_of([Prompt([10] * length, length) for length in (1, 2, 3, 10)])
    assert realised["prompt_tokens"] == {
        "total": 16,
        "mean": 4.0,
        "median": 2.5,
        "p95": pytest.approx(8.95),
        "min": 1,
        "max": 10,
    }


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        load_dataset(path)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_offsets": np.array([0, 4], dtype=np.int64)},
        {"prompt_ids": np.array([1.5])},
        {"output_tokens": np.zeros(20, dtype=np.int32)},
        {"prompt_ids": None},
    ],
)
def test_wrong_arrays_are_refused_even_with_a_right_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    import hashlib

    path = stored(tmp_path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files} | change
    with path.open("wb") as file:
        np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["npz_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar_path(path).write_text(json.dumps(sidecar))
    with pytest.raises(UserError, match="damaged"):
        load_dataset(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2}'])
def test_a_garbled_description_is_refused(tmp_path: Path, text: str) -> None:
    path = stored(tmp_path)
    sidecar_path(path).write_text(text)
    with pytest.raises(UserError, match="description"):
        load_dataset(path)


def test_a_description_of_something_else_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["spec"]["seed"] = 7
    sidecar_path(path).write_text(json.dumps(sidecar))
    with pytest.raises(UserError, match="key does not belong"):
        load_dataset(path)


def test_missing_files_and_wrong_names_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="cannot read the dataset"):
        load_dataset(path)
    sidecar_path(path).unlink()
    with pytest.raises(UserError, match="cannot read"):
        load_dataset(path)
    with pytest.raises(UserError, match=r"\.npz"):
        save_dataset(tmp_path / "data.bin", fixed(), build_dataset(fixed()))


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_the_entry_point_builds_or_says_why_not(tmp_path: Path) -> None:
    spec = tmp_path / "dataset.json"
    spec.write_text(json.dumps(fixed()))
    done = run_script("--plan", str(spec), "--out", str(tmp_path / "data" / "a.npz"))
    assert (done.returncode, done.stderr) == (0, "")
    assert load_dataset(tmp_path / "data" / "a.npz").prompts == build_dataset(fixed())
    missing = resolve({"kind": "sharegpt", "path": str(tmp_path / "none.json"), "tokenizer": "nowhere"})
    for text, words in (
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        (json.dumps(fixed() | {"seed": 5}), "key"),
        (json.dumps(missing), "none.json"),
    ):
        spec.write_text(text)
        failed = run_script("--plan", str(spec), "--out", str(tmp_path / "b.npz"))
        assert failed.returncode == 2
        assert failed.stderr.startswith("memgap: ")
        assert failed.stderr.count("\n") == 1
        assert words in failed.stderr


def conversations(*pairs: tuple[str, str, int, int]) -> str:
    """Return a ShareGPT file; each pair is (first speaker, second speaker, question words, answer words)."""
    content: list[Any] = [
        {
            "id": str(number),
            "conversations": [
                {"from": first, "value": " ".join(f"w{20 + number}" for _ in range(question))},
                {"from": second, "value": " ".join("w30" for _ in range(answer))},
            ],
        }
        for number, (first, second, question, answer) in enumerate(pairs)
    ]
    return json.dumps([*content, {"id": "short", "conversations": []}, {"id": "none"}, 3])


def sharegpt(folder: Path, text: str, **fields: Any) -> dict[str, Any]:
    (folder / "sharegpt.json").write_text(text)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(100)))
    entry = {"kind": "sharegpt", "path": str(folder / "sharegpt.json"), "tokenizer": str(folder)}
    requests = fields.pop("requests", 2)
    vocabulary_size = fields.pop("vocabulary_size", 100)
    return resolve(entry | fields, requests=requests, vocabulary_size=vocabulary_size)


CONVERSATIONS = conversations(
    ("human", "gpt", 5, 6),
    ("gpt", "human", 7, 7),
    ("human", "gpt", 3, 9),
    ("human", "gpt", 9, 3),
    ("human", "gpt", 1025, 9),
    ("human", "gpt", 1000, 1049),
    ("human", "gpt", 1000, 1048),
    ("human", "human", 7, 7),
)

has_tokenizers = importlib.util.find_spec("tokenizers") is not None
needs_tokenizers = pytest.mark.skipif(
    not has_tokenizers,
    reason="NOT CHECKED HERE: the package tokenizers is not installed, so no text was tokenised",
)


@needs_tokenizers
def test_conversations_are_pruned_like_the_serving_benchmarks_do(tmp_path: Path) -> None:
    prompts = build_dataset(sharegpt(tmp_path, CONVERSATIONS))
    assert sorted((p.token_ids[0], len(p.token_ids), p.output_tokens) for p in prompts) == [
        (20, 5, 6),
        (26, 1000, 1048),
    ]


FORMS = {
    "user and assistant": {"from": ("user", "assistant"), "keys": ("from", "value"), "list": "conversations"},
    "roles": {"from": ("user", "assistant"), "keys": ("role", "content"), "list": "conversations"},
    "messages": {"from": ("human", "model"), "keys": ("role", "content"), "list": "messages"},
    "system": {"from": ("system", "user", "assistant"), "keys": ("role", "content"), "list": "messages"},
}


@needs_tokenizers
@pytest.mark.parametrize("form", FORMS)
def test_files_that_name_the_speakers_otherwise_are_read_too(tmp_path: Path, form: str) -> None:
    speakers, (who, what) = FORMS[form]["from"], FORMS[form]["keys"]
    said = ("w9", "w1 w2 w3 w4", "w5 w6 w7 w8 w9")[-len(speakers) :]
    turns = [{who: speaker, what: text} for speaker, text in zip(speakers, said, strict=True)]
    entries = [{"id": str(number), FORMS[form]["list"]: turns} for number in range(3)]
    for text in (json.dumps(entries), "\n".join(json.dumps(one) for one in entries)):
        prompts = build_dataset(sharegpt(tmp_path, "\ufeff" + text))
        assert [(len(one.token_ids), one.output_tokens) for one in prompts] == [(4, 5)] * 2


@needs_tokenizers
def test_speakers_that_nobody_knows_are_told(tmp_path: Path) -> None:
    text = conversations(*[("alice", "bob", 5, 5)] * 3)
    with pytest.raises(
        UserError, match=r"6 entries, 3 of them with two turns .*there are alice and bob; known are human and gpt"
    ):
        build_dataset(sharegpt(tmp_path, text))
    mixed = conversations(("human", "gpt", 5, 5), ("user", "assistant", 6, 6), ("human", "gpt", 7, 7))
    assert sorted(len(one.token_ids) for one in build_dataset(sharegpt(tmp_path, mixed))) == [5, 7], "as ever"


@needs_tokenizers
def test_random_ids_keep_the_lengths_of_conversations(tmp_path: Path) -> None:
    prompts = build_dataset(sharegpt(tmp_path, CONVERSATIONS, token_ids="random", vocabulary_size=64))
    assert sorted((len(p.token_ids), p.output_tokens) for p in prompts) == [(5, 6), (1000, 1048)]
    assert all(RESERVED_IDS <= token_id < 64 for prompt in prompts for token_id in prompt.token_ids)


@needs_tokenizers
def test_conversations_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 usable conversations, but 3 requests"):
        build_dataset(sharegpt(tmp_path, CONVERSATIONS, requests=3))
    text = conversations(*[("human", "gpt", 5, 5)] * 20)
    with pytest.raises(UserError, match="token id 39, but the model has 35 ids"):
        build_dataset(sharegpt(tmp_path, text, requests=20, vocabulary_size=35))
    for garbled in ("{", "{}"):
        with pytest.raises(UserError, match=r"sharegpt\.json"):
            build_dataset(sharegpt(tmp_path, garbled))
    spec = sharegpt(tmp_path, CONVERSATIONS)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        build_dataset(spec)


@pytest.mark.skipif(has_tokenizers, reason="the package tokenizers is installed")
def test_a_missing_tokenizers_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="package tokenizers"):
        build_dataset(sharegpt(tmp_path, CONVERSATIONS))


def test_missing_sources_are_named(tmp_path: Path) -> None:
    spec = sharegpt(tmp_path, CONVERSATIONS)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json.*does not exist"):
        build_dataset(spec)
    (tmp_path / "sharegpt.json").unlink()
    with pytest.raises(UserError, match=r"sharegpt\.json.*does not exist"):
        build_dataset(spec)


def test_sources_are_recorded_by_digest(tmp_path: Path) -> None:
    sources = source_files(sharegpt(tmp_path, CONVERSATIONS))
    assert [source["name"] for source in sources] == ["sharegpt.json", "tokenizer.json"]
    assert all(len(source["sha256"]) == 64 and source["size_bytes"] > 0 for source in sources)
    assert source_files(fixed()) == []
