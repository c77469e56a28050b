"""Prompts from a dataset's description: equal descriptions give equal prompts.

Made-up prompts are random token ids. The first tokens of each spell its own number, so no two prompts share a
start and a prefix cache cannot serve one from another. NumPy's RandomState is used because its streams are
frozen: they stay the same from one NumPy release to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memgap.datasets.lengths import Lengths, random_lengths, sharegpt_like_lengths
from memgap.datasets.sharegpt import read_conversations
from memgap.datasets.spec import RESERVED_IDS, WARMUP_OUTPUT_TOKENS, WARMUP_RESERVE, start_digits
from memgap.datasets.texts import read_texts
from memgap.datasets.traces import read_trace
from memgap.datasets.workloads import (
    MakeIds,
    mixed_lengths,
    trace_prompts,
    with_history,
    with_shared_prefixes,
)
from memgap.errors import UserError

_MEASURED_LENGTHS: Final = 0
_MEASURED_IDS: Final = 1
_WARMUP_IDS: Final = 2
_STARTS: Final = 3
_STRUCTURE: Final = 4


@dataclass(frozen=True)
class Prompt:
    """One request: the prompt's token ids, or none and its text, and how many tokens to generate.

    `due_s`: when a trace says that it comes; `conversation`: requests with the same number follow one another;
    `group`: number of its part or prefix in a mixture.
    """

    token_ids: list[int]
    output_tokens: int
    due_s: float | None = None
    conversation: int | None = None
    group: int | None = None
    text: str | None = None


def build_dataset(spec: Mapping[str, Any], vocabulary_size: int | None = None) -> list[Prompt]:
    """Return the prompts of `built`."""
    return built(spec, vocabulary_size)[0]


def built(spec: Mapping[str, Any], vocabulary_size: int | None = None) -> tuple[list[Prompt], dict[str, Any] | None]:
    """Return the `requests` measured prompts of `spec`, a value of `resolve_dataset`, and how a trace was read.

    `vocabulary_size`, where given, must be the one the spec was made for.
    Raises UserError where lengths cannot be met, or where files or packages that real text needs are missing.
    """
    _check_vocabulary(spec, vocabulary_size)
    if spec["kind"] == "trace":
        return _trace(spec)
    return _made(spec), None


def _made(spec: Mapping[str, Any]) -> list[Prompt]:
    if spec["kind"] == "sharegpt":
        conversations = read_conversations(spec)
        if spec["token_ids"] == "text":
            return [Prompt(prompt.tolist(), output) for prompt, output in conversations]
        lengths = Lengths(
            np.array([len(prompt) for prompt, _ in conversations], dtype=np.int64),
            np.array([output for _, output in conversations], dtype=np.int64),
        )
    elif spec["kind"] == "texts":
        texts = read_texts(spec, _stream(spec, _STRUCTURE))
        drawn = random_lengths({**spec, "prompt_tokens": spec["output_tokens"]}, _stream(spec, _MEASURED_LENGTHS))
        return [Prompt([], int(output), text=text) for text, output in zip(texts, drawn.output, strict=True)]
    elif spec["kind"] == "mixed":
        lengths, parts = mixed_lengths(spec, _stream(spec, _MEASURED_LENGTHS))
        return _grouped(_prompts(spec, lengths, np.arange(spec["requests"]), _stream(spec, _MEASURED_IDS)), parts)
    elif spec["kind"] in ("random", "shared-prefix", "multi-turn"):
        lengths = random_lengths(spec, _stream(spec, _MEASURED_LENGTHS))
    else:
        lengths = sharegpt_like_lengths(spec, _stream(spec, _MEASURED_LENGTHS))
    prompts = _prompts(spec, lengths, np.arange(spec["requests"]), _stream(spec, _MEASURED_IDS))
    if spec["kind"] == "shared-prefix":
        ids, groups = with_shared_prefixes(
            [one.token_ids for one in prompts], spec, _maker(spec), _stream(spec, _STRUCTURE)
        )
        return _grouped([replace(one, token_ids=own) for one, own in zip(prompts, ids, strict=True)], groups)
    if spec["kind"] == "multi-turn":
        turns, outputs = [one.token_ids for one in prompts], [one.output_tokens for one in prompts]
        ids, numbers = with_history(turns, outputs, spec, _maker(spec))
        return [
            replace(one, token_ids=own, conversation=int(number))
            for one, own, number in zip(prompts, ids, numbers, strict=True)
        ]
    return prompts


def _trace(spec: Mapping[str, Any]) -> tuple[list[Prompt], dict[str, Any]]:
    trace = read_trace(spec)
    rows = trace.rows
    lengths = Lengths(np.array([one.prompt_tokens for one in rows]), np.array([one.output_tokens for one in rows]))
    own = _prompts(spec, lengths, np.arange(len(rows)), _stream(spec, _MEASURED_IDS))
    ids = trace_prompts(trace, spec, [one.token_ids for one in own])
    prompts = [Prompt(mine, row.output_tokens, due_s=row.time_s) for mine, row in zip(ids, rows, strict=True)]
    return prompts, trace.facts


def _grouped(prompts: list[Prompt], groups: npt.NDArray[np.int64]) -> list[Prompt]:
    return [replace(one, group=int(group)) for one, group in zip(prompts, groups, strict=True)]


def _maker(spec: Mapping[str, Any]) -> MakeIds:
    """Return what makes further ids of a structured workload, of their own stream."""
    stream = _stream(spec, _STRUCTURE)

    def make(lengths: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> list[list[int]]:
        made = Lengths(lengths, np.ones_like(lengths))
        if spec["kind"] == "multi-turn":  # replies begin anyhow: only whole prompts need starts of their own
            ids = stream.randint(RESERVED_IDS, spec["vocabulary_size"], size=int(lengths.sum()), dtype=np.int64)
            ends = np.cumsum(lengths)
            return [ids[end - size : end].tolist() for end, size in zip(ends, lengths, strict=True)]
        return [one.token_ids for one in _prompts(spec, made, numbers, stream)]

    return make


def warmup_prompts(
    spec: Mapping[str, Any], vocabulary_size: int | None = None, n: int = 1, like: Sequence[Prompt] = ()
) -> list[Prompt]:
    """Return `n` prompts for warming a server up, none of which starts like a measured one.

    Their lengths are spread evenly over those of `like`, the shortest and the longest among them, so that every shape
    was served once; without `like` they are the dataset's typical ones. At most `WARMUP_OUTPUT_TOKENS` tokens are
    generated for each. For real text they are random ids all the same; for prompts that are sent as text, such texts
    after a number. Raises UserError for more than `WARMUP_RESERVE` prompts.
    """
    _check_vocabulary(spec, vocabulary_size)
    if not 0 <= n <= WARMUP_RESERVE:
        raise UserError(f"{n} warm-up requests are asked for, but there must be 0 to {WARMUP_RESERVE}")
    if spec["kind"] == "texts":
        ordered = sorted(like or built(spec)[0], key=lambda one: len(one.text or ""))
        chosen = [ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, n)]
        return [
            Prompt([], min(one.output_tokens, WARMUP_OUTPUT_TOKENS), text=f"({number}) {one.text}")
            for number, one in enumerate(chosen, 1)
        ]
    pairs = sorted((len(one.token_ids), one.output_tokens) for one in like) or [_typical_lengths(spec)]
    middle = pairs[len(pairs) // 2]
    spread = [pairs[round(place)] for place in np.linspace(0, len(pairs) - 1, n)] if n > 1 else [middle] * n
    lengths = Lengths(
        np.array([prompt for prompt, _ in spread], dtype=np.int64),
        np.array([min(output, WARMUP_OUTPUT_TOKENS) for _, output in spread], dtype=np.int64),
    )
    return _prompts(spec, lengths, spec["requests"] + np.arange(n), _stream(spec, _WARMUP_IDS))


def _check_vocabulary(spec: Mapping[str, Any], vocabulary_size: int | None) -> None:
    if vocabulary_size is not None and vocabulary_size != spec["vocabulary_size"]:
        raise UserError(
            f"dataset {spec.get('name', spec['kind'])} was described for a vocabulary of "
            f"{spec['vocabulary_size']} ids, but the model has {vocabulary_size}"
        )


def _stream(spec: Mapping[str, Any], purpose: int) -> np.random.RandomState:
    seed = int(spec["seed"])
    words = [purpose]
    while seed or len(words) == 1:
        words.append(seed & 0xFFFFFFFF)
        seed >>= 32
    return np.random.RandomState(words)


def _typical_lengths(spec: Mapping[str, Any]) -> tuple[int, int]:
    if "parts" in spec:
        spec = max(spec["parts"], key=lambda part: part["weight"])
    if "prompt_tokens" in spec:
        prompt, output = ((spec[name]["min"] + spec[name]["max"]) // 2 for name in ("prompt_tokens", "output_tokens"))
        return prompt, output
    prompt = round(spec.get("mean_prompt_tokens", 161.0))
    prompt = max(spec["min_prompt_tokens"], min(prompt, spec["max_prompt_tokens"], spec["max_total_tokens"] - 1))
    output = round(spec.get("mean_output_tokens", 338.0))
    return prompt, max(1, min(output, spec["max_total_tokens"] - prompt))


def _prompts(
    spec: Mapping[str, Any], lengths: Lengths, numbers: npt.NDArray[np.int64], stream: np.random.RandomState
) -> list[Prompt]:
    """Return prompts of `lengths` whose first tokens spell `numbers` (one a prompt) in a shuffled code."""
    if len(numbers) == 0:
        return []
    total = int(lengths.prompt.sum())
    ids = stream.randint(RESERVED_IDS, spec["vocabulary_size"], size=total, dtype=np.int64)
    ends = np.cumsum(lengths.prompt)
    starts = ends - lengths.prompt
    base = spec["vocabulary_size"] - RESERVED_IDS
    digits = start_digits(spec["vocabulary_size"], spec["requests"])
    # A permutation for each digit keeps the code one-to-one and its words unordered.
    shuffles = _stream(spec, _STARTS)
    rest = numbers
    for position in range(digits):
        permutation = shuffles.permutation(base)
        ids[starts + position] = RESERVED_IDS + permutation[rest % base]
        rest = rest // base
    return [
        Prompt(ids[start:end].tolist(), int(output))
        for start, end, output in zip(starts, ends, lengths.output, strict=True)
    ]
