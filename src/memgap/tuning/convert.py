"""Reads a benchmark file of the kind with `fixed_args` and `experiments` (name, args) and makes it a tuning.

Such a file names a script, fixed arguments and experiments; any list is a sweep axis, and experiments override the
fixed arguments. Tiers are told by the beginning of an experiment's name (`tier0-small`). `prompt-template` is a pair of
name and text, or a list of pairs as an axis. Arguments of its scheduler or output have no meaning here and are listed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memgap.config.reading import read_yaml
from memgap.errors import UserError
from memgap.models.hf_config import from_hf_config, hf_config_dtype
from memgap.models.registry import load_registry

FLAGS: Mapping[str, str] = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "max-num-seqs": "max-num-seqs",
    "max-num-batched-tokens": "max-num-batched-tokens",
    "gpu-memory-utilization": "gpu-memory-utilization",
    "block-size": "block-size",
    "kv-cache-dtype": "kv-cache-dtype",
    "speculative-config": "speculative-config",
    "quantization": "quantization",
    "model-max-context": "max-model-len",
    "trust-remote-code": "trust-remote-code",
    "optimization-level": "optimization-level",
}
"""An argument there -> the server flag here."""
MODEL, TEMPLATE, DOCUMENT = "model-name-or-path", "prompt-template", "[[DOCUMENT]]"
READ = ("max-examples", "max-tokens", "max-concurrent-generations", "temperature", "seed")
NOTHING = ("none", "null", "")
TOKENS_PER_WORD = 4 / 3
TIER = re.compile(r"^(tier\d+)")
BASELINE: Mapping[str, Any] = {
    "max-num-seqs": 256,
    "max-num-batched-tokens": 8192,
    "gpu-memory-utilization": 0.9,
    "block-size": 16,
    "kv-cache-dtype": "auto",
}
"""The default that winners of such a file are compared with, at the first tensor-parallel-size that runs."""


@dataclass
class Options:
    """What a file does not say: shapes (hub id -> config.json), revisions, and the length of a document in tokens."""

    shapes: Mapping[str, Path] = field(default_factory=dict)
    revisions: Mapping[str, str] = field(default_factory=dict)
    document_tokens: int = 1000
    documents: Path | None = None
    follow_winners: bool = False


@dataclass
class Converted:
    """A configuration, and what its reader has to know."""

    config: dict[str, Any]
    notes: list[str]


def convert(path: Path, options: Options) -> Converted:
    """Return the file as a configuration of this project; raises UserError where it is no such file."""
    content = _read(path)
    return _Conversion(content, path, options).result()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("experiments"), list):
        raise UserError(f"{path}: not a benchmark file, it has no list of `experiments`.")
    for number, one in enumerate(content["experiments"], start=1):
        if not isinstance(one, dict) or "name" not in one or not isinstance(one.get("args", {}), dict):
            raise UserError(f"{path}: experiment {number} needs a `name` and a mapping `args`.")
        if "name" in (one.get("args") or {}):
            raise UserError(f"{path}: experiment {one['name']!r} has `name` among its args, where it cannot be.")
    return content


class _Conversion:
    def __init__(self, content: Mapping[str, Any], path: Path, options: Options) -> None:
        self._content, self._path, self._options = content, path, options
        self._fixed: dict[str, Any] = dict(content.get("fixed_args") or {})
        self._models: dict[str, Any] = {}
        self._datasets: dict[str, Any] = {}
        self._notes: list[str] = []
        self._ignored: dict[str, None] = {}

    def result(self) -> Converted:
        tiers = self._tiers()
        requests = int(self._fixed.get("max-examples", 1000))
        fixed = self._arguments(self._fixed)
        fixed["batch_cap"] = min(int(self._fixed.get("max-concurrent-generations", 500)), requests)
        fixed["load"] = {"requests": requests, "temperature": float(self._fixed.get("temperature", 0.0))}
        tensor = {"tensor-parallel-size": [1, 2, 4, 8]} if self._most_gpus(tiers) > 1 else {}
        tuning = {
            "fixed": fixed,
            "default": {"server": {**tensor, **BASELINE}},
            "tiers": tiers,
            "gpus": max(self._most_gpus(tiers), 8 if tensor else 1),
            "seed": int(self._fixed.get("seed", 0)),
            "continue_on_failure": bool(self._content.get("continue_on_failure", False)),
        }
        if self._ignored:
            self._notes.append(f"without a meaning here, left out: {', '.join(self._ignored)}")
        name = re.sub(r"[^A-Za-z0-9._-]", "-", self._path.stem)
        config = {
            "engines": {"vllm": {"adapter": "vllm"}},
            "models": self._models,
            "datasets": self._datasets,
            "tuning": {name: tuning},
        }
        return Converted({part: value for part, value in config.items() if value}, self._notes)

    def _tiers(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for one in self._content["experiments"]:
            begins = TIER.match(str(one["name"]))
            tier = found.setdefault(begins[1] if begins else "tier0", {})
            tier[_free_name(str(one["name"]), tier)] = dict(one.get("args") or {})
        earlier: set[str] = set()
        tiers: dict[str, Any] = {}
        for name in sorted(found):
            varied = {flag for args in found[name].values() for flag, value in args.items() if isinstance(value, list)}
            if self._options.follow_winners and earlier:
                dropped = {one: earlier & args.keys() - {MODEL, TEMPLATE} - varied for one, args in found[name].items()}
                for one, gone in dropped.items():
                    found[name][one] = {flag: value for flag, value in found[name][one].items() if flag not in gone}
            tiers[name] = {"experiments": {one: self._arguments(args) for one, args in found[name].items()}}
            earlier |= varied
        return tiers

    def _arguments(self, args: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        server: dict[str, Any] = {}
        for name, value in args.items():
            if name == MODEL:
                made["model"] = _each(value, self._model)
            elif name == TEMPLATE:
                made["dataset"] = self._templates(value)
            elif name in FLAGS:
                server[FLAGS[name]] = _each(value, lambda one, name=name: _flag_value(name, one))
            elif name not in READ:
                self._ignored[name] = None
        if server:
            made["server"] = server
        return made

    def _model(self, hub_id: Any) -> str:
        text = str(hub_id)
        known = {entry.hub_id: name for name, entry in load_registry().items() if entry.hub_id}
        if text in known:
            return known[text]
        name = re.sub(r"[^A-Za-z0-9._-]", "--", text).strip("-")[:64]
        if name in self._models:
            return name
        entry: dict[str, Any] = {"weights": "hub", "hub_id": text, "revision": self._options.revisions.get(text)}
        if Path(text).is_dir():
            entry = {"weights": "path", "path": text}
        elif text in self._options.shapes:
            where = str(self._options.shapes[text])
            shape = json.loads(self._options.shapes[text].read_text(encoding="utf-8"))
            entry["architecture"] = from_hf_config(shape, where).to_dict()
            entry["dtype"] = hf_config_dtype(shape, where)
        else:
            entry |= {"architecture": None, "dtype": "bfloat16"}
            self._notes.append(f"models.{name} needs its shape (--shape {text}=config.json)")
        if entry["weights"] == "hub" and entry["revision"] is None:
            self._notes.append(f"models.{name} needs its commit on the hub (--revision {text}=COMMIT)")
        self._models[name] = entry
        return name

    def _templates(self, value: Any) -> Any:
        if not isinstance(value, list) or not value:
            raise UserError(f"{self._path}: {TEMPLATE} has to be [name, text] or a list of such pairs, not {value!r}.")
        if isinstance(value[0], list):
            return [self._template(one) for one in value]
        return self._template(value)

    def _template(self, pair: Sequence[Any]) -> str:
        if len(pair) != 2 or DOCUMENT not in str(pair[1]):
            raise UserError(f"{self._path}: {TEMPLATE} {pair!r} is no pair of a name and a text with {DOCUMENT}.")
        name, text = str(pair[0]), str(pair[1])
        requests, output = int(self._fixed.get("max-examples", 1000)), int(self._fixed.get("max-tokens", 512))
        before = text.partition(DOCUMENT)[0]
        self._datasets[name] = {
            "kind": "shared-prefix",
            "requests": requests,
            "prefixes": 1,
            "prefix_tokens": max(1, round(len(before.split()) * TOKENS_PER_WORD)),
            "prompt_tokens": self._options.document_tokens,
            "output_tokens": output,
        }
        self._notes.append(
            f"datasets.{name} stands for the template's prompts by made-up tokens: the template as a shared beginning, "
            f"documents of {self._options.document_tokens} tokens, outputs of {output}; for speculation name a dataset "
            "of real text"
        )
        return name

    @staticmethod
    def _most_gpus(tiers: Mapping[str, Any]) -> int:
        most = 1
        for tier in tiers.values():
            for one in tier["experiments"].values():
                product = 1
                for flag in ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"):
                    value = one.get("server", {}).get(flag, 1)
                    product *= max(map(int, value)) if isinstance(value, list) else int(value)
                most = max(most, product)
        return most


def _each(value: Any, change: Any) -> Any:
    return [change(one) for one in value] if isinstance(value, list) else change(value)


def _flag_value(name: str, value: Any) -> Any:
    """Return a value as this project writes it: nothing for none, JSON text as a mapping."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NOTHING):
        return None
    if name != "speculative-config":
        return value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"speculative-config {value!r} is no JSON mapping.") from error
    config = dict(value)
    tokens = config.get("num_speculative_tokens")
    if config.get("method") == "ngram" and "prompt_lookup_max" not in config and isinstance(tokens, int):
        config["prompt_lookup_max"] = max(1, tokens - 1)
    return config


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:60]
    number = 1
    while (found := clean if number == 1 else f"{clean}-{number}") in taken:
        number += 1
    return found
