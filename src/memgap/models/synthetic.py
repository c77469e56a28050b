"""A model folder without weights: enough for an engine that fills them in by itself.

Every token id is one printable ASCII word, so that whatever the engine samples is whole text at once and no
server holds characters back while it waits for the rest of them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.models.architecture import WEIGHT_DTYPES, ModelArchitecture
from memgap.models.fields import Fields
from memgap.models.hf_config import to_hf_config
from memgap.store.atomic import write_text

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def word(token_id: int) -> str:
    """Return the word that stands for `token_id`."""
    return f"w{token_id}"


def speaks_words(model: Mapping[str, Any]) -> bool:
    """Tell whether a model of a record has the tokenizer that is written here, in which every id is a word."""
    return model.get("weights") in ("synthetic", "random-file")


def encodes_text(architecture: ModelArchitecture) -> bool:
    """Tell whether the written tokenizer turns words into ids, which a text prompt or a chat needs.

    False for Qwen2 shapes: transformers 5 insists on its byte-level tokenizer for them, which can give every
    id its word but finds no ids for a text. Prompts of token ids work for every shape.
    """
    return architecture.hf_class != "Qwen2ForCausalLM"


def write_synthetic_model(model: Mapping[str, Any], folder: Path) -> None:
    """Write config.json, tokenizer.json and tokenizer_config.json of `model` into `folder`.

    `model` is the "model" part of a point record. Equal models give equal bytes.
    Raises UserError where its weights are not synthetic or the folder cannot be written.
    """
    if model.get("weights") != "synthetic":
        raise UserError(
            f"model {model.get('name')}: weights are {model.get('weights')}, "
            "but only a model with synthetic weights can be written"
        )
    where = f"model {model.get('name')}"
    architecture = ModelArchitecture.from_dict(model.get("architecture"), where)
    dtype = Fields({"dtype": model.get("dtype")}, where, ("dtype",)).text("dtype", choices=WEIGHT_DTYPES)
    contents = {
        "config.json": to_hf_config(architecture, dtype),
        "tokenizer.json": tokenizer_json(architecture.vocabulary_size),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": architecture.max_length,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    try:
        for name in FILES:
            write_text(folder / name, json.dumps(contents[name]) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the model into {folder}: {error.strerror}") from None


def tokenizer_json(vocabulary_size: int) -> dict[str, Any]:
    """Return the content of a word-level tokenizer.json: id n is the word "w<n>", unknown words are id 0."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word(token_id): token_id for token_id in range(vocabulary_size)},
            "unk_token": word(0),
        },
    }
