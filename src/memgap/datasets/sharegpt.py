"""Real conversations: the first question and answer of each ShareGPT conversation, tokenised and pruned."""

import codecs
import hashlib
import importlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memgap.errors import UserError

SPEAKERS = ((("human",), ("gpt",)), (("user", "human"), ("assistant", "gpt", "chatgpt", "model")))
"""Who asks and who answers: as in the published file, and where nobody is named so, as in others."""
SYSTEM = ("system",)
_BATCH = 512
"""Conversations tokenised at once."""

BPE_FILES = ("vocab.json", "merges.txt")
BEGIN_OF_TEXT = "</s>"


def read_conversations(spec: Mapping[str, Any]) -> list[tuple[npt.NDArray[np.int32], int]]:
    """Return (prompt ids, answer length in tokens) of `requests` conversations, in an order set by the seed.

    A conversation counts when its first turn is by "human" and its second by "gpt" (or by others, see `SPEAKERS`), and
    when its lengths are within the limits of `spec`, which are those of the serving benchmarks of vLLM and SGLang.
    These do not look at who speaks, so a few of their conversations are not among these. The prompt has the tokenizer's
    special tokens, as a server would add them; the answer has none.

    Raises UserError for missing or garbled files, a missing tokenizers package, ids that the model does not
    have, and too few conversations.
    """
    source, files = conversation_file(spec), tokenizer_files(spec)
    tokenizer = _load_tokenizer(files)
    pairs = _first_turns(source)
    random.Random(spec["seed"]).shuffle(pairs)
    chosen: list[tuple[npt.NDArray[np.int32], int]] = []
    for prompt, answer_tokens in _tokenised(pairs, tokenizer):
        if (
            spec["min_prompt_tokens"] <= len(prompt) <= spec["max_prompt_tokens"]
            and answer_tokens >= spec["min_output_tokens"]
            and len(prompt) + answer_tokens <= spec["max_total_tokens"]
        ):
            chosen.append((np.array(prompt, dtype=np.int32), answer_tokens))
            if len(chosen) == spec["requests"]:
                break
    if len(chosen) < spec["requests"]:
        raise UserError(
            f"{source} has {len(chosen)} usable conversations, but {spec['requests']} requests are asked for "
            f"({len(pairs)} with a question and an answer, the others of them outside the limits of lengths)"
        )
    largest = max(int(prompt.max()) for prompt, _ in chosen)
    if spec["token_ids"] == "text" and largest >= spec["vocabulary_size"]:
        raise UserError(
            f"{files[0]} gives token id {largest}, but the model has {spec['vocabulary_size']} ids; "
            "use the model's own tokenizer, or token_ids: random to keep the lengths only"
        )
    return chosen


def source_files(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return path, size and SHA-256 of each file the dataset is made from; nothing for made-up kinds."""
    if spec["kind"] == "trace":
        files = [_existing(Path(spec["path"]), "the trace")]
    elif spec["kind"] == "texts" and spec["path"] is not None:
        files = [_existing(Path(spec["path"]), "the file of prompts")]
    elif spec["kind"] == "sharegpt":
        files = [conversation_file(spec), *tokenizer_files(spec)]
    else:
        return []
    found = []
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        found.append({"name": file.name, "size_bytes": file.stat().st_size, "sha256": digest})
    return found


def conversation_file(spec: Mapping[str, Any]) -> Path:
    """Return the file of conversations, fetched from the hub where no path is given; raises UserError."""
    if spec["path"] is not None:
        return _existing(Path(spec["path"]), "the ShareGPT file")
    return _fetched(spec["hub_id"], spec["hub_file"], spec["revision"], "dataset")


def tokenizer_files(spec: Mapping[str, Any]) -> list[Path]:
    """Return [tokenizer.json], or [vocab.json, merges.txt] of a byte-level BPE, as OPT's repositories have.

    A path may name tokenizer.json or the folder of the files. Raises UserError where there is neither.
    """
    where = spec["tokenizer"]
    if where["path"] is not None:
        path = Path(where["path"])
        pair = [path / name for name in BPE_FILES]
        if path.is_dir() and not (path / "tokenizer.json").is_file() and all(file.is_file() for file in pair):
            return pair
        return [_existing(path / "tokenizer.json" if path.is_dir() else path, "the tokenizer")]
    try:
        return [_fetched(where["hub_id"], "tokenizer.json", where["revision"], "model")]
    except UserError as error:
        try:
            return [_fetched(where["hub_id"], name, where["revision"], "model") for name in BPE_FILES]
        except UserError:
            raise error from None


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path} ({what}) does not exist or is no file")
    return path


def _fetched(hub_id: str, file: str, revision: str, repo_type: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            f"{file} of {hub_id} is needed, but the package huggingface_hub is not installed; "
            "install it or give a local path"
        ) from None
    try:
        return Path(hub.hf_hub_download(hub_id, file, revision=revision, repo_type=repo_type))
    except Exception as error:  # whatever the hub's client or the network raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot fetch {file} of {hub_id} at {revision}: {reason}") from None


def _load_tokenizer(files: Sequence[Path]) -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise UserError(
            "datasets of kind sharegpt need the package tokenizers, which is not installed; "
            "install it or use kind sharegpt-like"
        ) from None
    try:
        if len(files) == 1:
            tokenizer = tokenizers.Tokenizer.from_file(str(files[0]))
        else:
            tokenizer = _byte_level_bpe(tokenizers, files[0], files[1])
    except Exception as error:  # the package raises plain Exception
        raise UserError(f"{files[0]} is no valid tokenizer: {str(error).splitlines()[0]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _first_turns(file: Path) -> list[tuple[str, str]]:
    """Return question and answer of the conversations of a file, as its first writers named the speakers.

    Files of other forms (`role` and `content`, `user` and `assistant`, `messages`) are read where none is named so, and
    where none is without one, a system's message before the question is passed over. Raises UserError for a file
    without any.
    """
    content = _contents(file)
    turns: list[tuple[tuple[str, str], tuple[str, str]]] = []
    for system in ((), SYSTEM):
        turns = [found for item in content if (found := _two_turns(item, system)) is not None]
        for asks, answers in SPEAKERS:
            pairs = [(first[1], second[1]) for first, second in turns if first[0] in asks and second[0] in answers]
            if pairs:
                return pairs
    seen = sorted({f"{first[0]} and {second[0]}" for first, second in turns})
    known = "; ".join(f"{asks[0]} and {answers[0]}" for asks, answers in SPEAKERS)
    raise UserError(
        f"{file} has {len(content)} entries, {len(turns)} of them with two turns and a text in each, but none whose "
        f"first two speakers are known (there are {', '.join(seen[:5]) or 'none'}; known are {known})"
    )


def _contents(file: Path) -> list[Any]:
    """Return the entries of a file, a JSON array or JSON lines; raises UserError for anything else."""
    data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        try:
            content = [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise UserError(f"{file} is no valid JSON; a ShareGPT file is a list of conversations") from None
    if not isinstance(content, list):
        raise UserError(f"{file} must hold a list of conversations")
    return content


def _two_turns(item: Any, passed_over: Sequence[str]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return speaker and text of a conversation's first two turns, one by those passed over left out; None where it has
    not two with a text."""
    turns = (item.get("conversations") or item.get("messages")) if isinstance(item, dict) else None
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        turns = turns[1:] if turns[0].get("from", turns[0].get("role")) in passed_over else turns
    if not isinstance(turns, list) or len(turns) < 2:
        return None
    found = []
    for turn in turns[:2]:
        if not isinstance(turn, dict):
            return None
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if not isinstance(speaker, str) or not isinstance(text, str):
            return None
        found.append((speaker, text))
    return found[0], found[1]


def _byte_level_bpe(tokenizers: Any, vocab: Path, merges: Path) -> Any:
    """Return the tokenizer of a vocab.json and merges.txt; where the vocabulary has "</s>", prompts begin with it.

    That is how OPT's tokenizer works.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    begin = tokenizer.token_to_id(BEGIN_OF_TEXT)
    if begin is not None:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{BEGIN_OF_TEXT} $A", special_tokens=[(BEGIN_OF_TEXT, begin)]
        )
    return tokenizer


def _tokenised(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        questions = tokenizer.encode_batch([question for question, _ in batch])
        answers = tokenizer.encode_batch([answer for _, answer in batch], add_special_tokens=False)
        for question, answer in zip(questions, answers, strict=True):
            yield question.ids, len(answer.ids)
