"""Reads a benchmark file of the kind with `fixed_args` and `experiments` (name, args) and makes it a tuning.

Such a file names a script, fixed arguments and experiments; any list is a sweep axis, and experiments override the
fixed arguments. Names have hyphens or underscores. Tiers are told by the beginning of an experiment's name
(`tier0-small`) and come in the order of their numbers. `prompt-template` is a text, a pair of name and text, or a
list of pairs as an axis. Arguments of its scheduler or output have no meaning here and are listed. What a file
leaves out is as datatrove's examples/inference/generate_data.py has it; where that cannot be, a note says so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from memgap.config.reading import read_yaml
from memgap.errors import UserError
from memgap.models.hf_config import from_hf_config, hf_config_dtype
from memgap.models.hub import LOCK
from memgap.models.registry import load_registry
from memgap.tuning.foreign import (
    at_least_zero,
    count,
    each,
    free_name,
    is_nothing,
    json_mapping,
    share,
    speculation,
    text,
    truth,
    whole,
)

FLAGS: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "tp": ("tensor-parallel-size", whole),
    "pp": ("pipeline-parallel-size", whole),
    "dp": ("data-parallel-size", whole),
    "max-num-seqs": ("max-num-seqs", whole),
    "max-num-batched-tokens": ("max-num-batched-tokens", whole),
    "gpu-memory-utilization": ("gpu-memory-utilization", share),
    "block-size": ("block-size", whole),
    "kv-cache-dtype": ("kv-cache-dtype", text),
    "speculative-config": ("speculative-config", speculation),
    "quantization": ("quantization", text),
    "model-max-context": ("max-model-len", whole),
    "optimization-level": ("optimization-level", partial(whole, least=0)),
}
"""An argument there -> the server flag here, and what reads its value."""
MODEL, TEMPLATE, REVISION, DOCUMENT = "model-name-or-path", "prompt-template", "model-revision", "[[DOCUMENT]]"
EXAMPLES, TOKENS, CONCURRENT = "max-examples", "max-tokens", "max-concurrent-generations"
CODE = "trust-remote-code"
TREATED = (MODEL, TEMPLATE, REVISION, EXAMPLES, TOKENS, CONCURRENT, CODE, "temperature")
DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_TOKENS, DEFAULT_CONCURRENT, DEFAULT_TEMPERATURE = 16384, 500, 1.0
"""What the original takes where a file says nothing or null; a model's own temperature goes before 1 there."""
REQUESTS = 1000
"""Requests where a file does not say how many, which means all documents there."""
TOKENS_PER_WORD = 4 / 3
TIER = re.compile(r"^tier(\d{1,9})", re.IGNORECASE)
BASELINE: Mapping[str, Any] = {
    "max-num-seqs": 256,
    "max-num-batched-tokens": 8192,
    "gpu-memory-utilization": 0.9,
    "block-size": 16,
    "kv-cache-dtype": "auto",
}
"""The default that winners of such a file are compared with, at the first tensor-parallel-size that runs."""
TOP_LEVEL = ("script", "fixed_args", "experiments", "continue_on_failure")
Arguments = dict[str, Any]


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


@dataclass(frozen=True)
class _Experiment:
    """An experiment of the file: its name, and its own arguments by their plain names."""

    name: str
    args: Arguments


def convert(path: Path, options: Options) -> Converted:
    """Return the file as a configuration of this project; raises UserError where it is no such file."""
    content = _read(path)
    return _Conversion(content, path, options).result()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path), as_yaml_1_1=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("experiments"), list):
        raise UserError(f"{path}: not a benchmark file, it has no list of `experiments`.")
    if not content["experiments"]:
        raise UserError(f"{path}: its list of `experiments` is empty.")
    if not isinstance(content.get("fixed_args") or {}, dict):
        raise UserError(f"{path}: `fixed_args` has to be a mapping of arguments to values.")
    for number, one in enumerate(content["experiments"], start=1):
        if not isinstance(one, dict) or "name" not in one or not isinstance(one.get("args") or {}, dict):
            raise UserError(f"{path}: experiment {number} needs a `name` and a mapping `args`.")
        if "name" in (one.get("args") or {}):
            raise UserError(f"{path}: experiment {one['name']!r} has `name` among its args, where it cannot be.")
    return content


class _Conversion:
    def __init__(self, content: Mapping[str, Any], path: Path, options: Options) -> None:
        self._content, self._path, self._options = content, path, options
        self._models: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._datasets: dict[str, Any] = {}
        self._made_of: dict[tuple[str, str, int], str] = {}
        self._notes: dict[str, None] = {}
        self._ignored: dict[str, None] = {}
        self._fixed = self._plain(content.get("fixed_args"), "fixed_args")
        self._experiments = [
            _Experiment(str(one["name"]), self._plain(one.get("args"), str(one["name"])))
            for one in content["experiments"]
        ]
        self._requests = self._most_requests()

    def result(self) -> Converted:
        fixed = self._fixed_arguments()
        tiers = self._tiers()
        most_gpus = self._most_gpus(fixed, tiers)
        tensor = {"tensor-parallel-size": [1, 2, 4, 8]} if most_gpus > 1 else {}
        tuning = {
            "fixed": fixed,
            "default": {"server": {**tensor, **BASELINE}},
            "tiers": tiers,
            "gpus": max(most_gpus, 8 if tensor else 1),
            "seed": self._seed(),
            "continue_on_failure": truth(
                self._content.get("continue_on_failure", True), f"{self._path}: continue_on_failure"
            ),
        }
        self._ignored |= dict.fromkeys(str(name) for name in self._content if name not in TOP_LEVEL)
        if self._ignored:
            self._note(f"without a meaning here, left out: {', '.join(self._ignored)}")
        for unused in sorted({*self._options.shapes, *self._options.revisions} - {*self._names}):
            self._note(f"--shape or --revision {unused}: no experiment has that model")
        config = {
            "engines": {"vllm": {"adapter": "vllm"}},
            "models": self._models,
            "datasets": self._datasets,
            "tuning": {free_name(self._path.stem, {}, "tuning"): tuning},
        }
        return Converted({part: value for part, value in config.items() if value}, list(self._notes))

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _where(self, name: str, place: str) -> str:
        return f"{self._path}: {place}: {name}"

    def _plain(self, args: Mapping[Any, Any] | None, place: str) -> Arguments:
        """Return arguments by names with hyphens: the original takes underscores as well, and the last one counts."""
        found: Arguments = {}
        for name, value in (args or {}).items():
            plain = str(name).strip().lstrip("-").replace("_", "-")
            if plain in found:
                self._note(f"{place}: {plain} is there in two spellings, the last one counts")
                del found[plain]
            found[plain] = value
        return found

    def _most_requests(self) -> int:
        """Return how many prompts the datasets need: the most that any experiment asks for."""
        found = [self._counts(self._fixed, "fixed_args")]
        found += [self._counts(one.args, one.name) for one in self._experiments if EXAMPLES in one.args]
        return max(max(one) for one in found)

    def _counts(self, args: Arguments, place: str) -> list[int]:
        if is_nothing(args.get(EXAMPLES)):
            return [REQUESTS]
        found = each(args[EXAMPLES], lambda one: count(one, self._where(EXAMPLES, place)), self._where(EXAMPLES, place))
        return found if isinstance(found, list) else [found]

    def _seed(self) -> int:
        """Return the seed of the order within blocks; there it is one of sampling, which is not sent here."""
        given = self._fixed.get("seed")
        if isinstance(given, list) or any("seed" in one.args for one in self._experiments):
            self._note(
                "seed: requests are sent without one, so other seeds than that of fixed_args change nothing here"
            )
        if isinstance(given, list) or is_nothing(given):
            return 0
        return whole(given, self._where("seed", "fixed_args"), least=0)

    def _fixed_arguments(self) -> Arguments:
        """Return `fixed`, the original's defaults included."""
        made = self._arguments(self._fixed, self._fixed, "fixed_args")
        if is_nothing(self._fixed.get(EXAMPLES)):
            self._note(f"{EXAMPLES} is not given: all documents there, {REQUESTS:,} requests here")
        if "dataset" not in made:
            made["dataset"] = self._dataset(self._fixed, "fixed_args")
        if "model" not in made and any(is_nothing(one.args.get(MODEL)) for one in self._experiments):
            self._note(f"{MODEL} is not given: {DEFAULT_MODEL}, as there")
            made["model"] = self._model(DEFAULT_MODEL, self._fixed, "fixed_args")
        if is_nothing(self._fixed.get("temperature")):
            self._note(
                "temperature is not given: that of the model's generation config there, else 1; "
                f"{DEFAULT_TEMPERATURE:g} here"
            )
        if is_nothing(self._fixed.get("model-max-context")):
            self._note("model-max-context is not given: 32768 there, what the engine takes here")
        load = {"temperature": DEFAULT_TEMPERATURE, **made.pop("load", {})}
        requests = self._counts(self._fixed, "fixed_args")
        cap = made.pop("batch_cap", min(DEFAULT_CONCURRENT, max(requests)))
        return {**made, "batch_cap": cap, "load": {"requests": _one_or_list(requests), **load}}

    def _tiers(self) -> dict[str, Any]:
        found: dict[tuple[int, str], dict[str, _Experiment]] = {}
        for one in self._experiments:
            begins = TIER.match(one.name)
            tier = found.setdefault((int(begins[1]), begins[0].lower()) if begins else (0, "tier0"), {})
            tier[free_name(one.name, tier, "experiment")] = one
        earlier: set[str] = set()
        tiers: dict[str, Any] = {}
        for key in sorted(found):
            members = found[key]
            varied = {flag for one in members.values() for flag, value in one.args.items() if isinstance(value, list)}
            made = {}
            for name, one in members.items():
                copied = (
                    earlier & one.args.keys() - {MODEL, TEMPLATE} - varied if self._options.follow_winners else set()
                )
                args = {flag: value for flag, value in one.args.items() if flag not in copied}
                made[name] = self._arguments(args, {**self._fixed, **args}, one.name)
            tiers[key[1]] = {"experiments": made}
            earlier |= varied
        return tiers

    def _arguments(self, args: Arguments, merged: Arguments, place: str) -> Arguments:
        """Return what `args` say as arguments here; `merged` are they with the fixed ones below."""
        made: Arguments = {}
        if not is_nothing(args.get(MODEL)):
            made["model"] = each(args[MODEL], lambda one: self._model(one, merged, place), self._where(MODEL, place))
        elif REVISION in args and args is not self._fixed:
            self._note(f"{place}: {REVISION} without a model of its own is left out; give --revision")
        if TEMPLATE in args or TOKENS in args:
            made["dataset"] = self._dataset(merged, place)
        if EXAMPLES in args or CONCURRENT in args:
            made |= self._seats(args, merged, place)
        if "temperature" in args and (args is not self._fixed or not is_nothing(args["temperature"])):
            made.setdefault("load", {})["temperature"] = self._temperature(args["temperature"], place)
        if server := self._flags(args, place):
            made["server"] = server
        if CODE in args and MODEL not in args and args is not self._fixed:
            self._note(f"{place}: {CODE} without a model of its own is left out; set trust_remote_code in `models`")
        for name in args:
            if name not in FLAGS and name not in TREATED and name != "seed":
                self._ignored[name] = None
        return made

    def _flags(self, args: Arguments, place: str) -> Arguments:
        server: Arguments = {}
        for name, value in args.items():
            if name in FLAGS:
                flag, read = FLAGS[name]
                where = self._where(name, place)
                server[flag] = each(value, partial(_unless_nothing, read, where), where)
        return server

    def _seats(self, args: Arguments, merged: Arguments, place: str) -> Arguments:
        """Return the requests in flight and in all; more in flight than there are have no meaning."""
        requests = self._counts(merged, place)
        where = self._where(CONCURRENT, place)
        given = DEFAULT_CONCURRENT if is_nothing(merged.get(CONCURRENT)) else merged[CONCURRENT]
        caps = each(given, lambda one: min(whole(one, where), max(requests)), where)
        made: Arguments = {"batch_cap": list(dict.fromkeys(caps)) if isinstance(caps, list) else caps}
        if EXAMPLES in args and args is not self._fixed:
            made["load"] = {"requests": _one_or_list(requests)}
        return made

    def _temperature(self, value: Any, place: str) -> float:
        where = self._where("temperature", place)
        if isinstance(value, list):
            raise UserError(
                f"{where} is a list, but a tuning has one temperature; write one, and a file for each other."
            )
        return DEFAULT_TEMPERATURE if is_nothing(value) else at_least_zero(value, where)

    # --- models

    def _model(self, hub_id: Any, merged: Arguments, place: str) -> str:
        name_there = DEFAULT_MODEL if is_nothing(hub_id) else text(hub_id, self._where(MODEL, place)).strip()
        known = {entry.hub_id: name for name, entry in load_registry().items() if entry.hub_id and entry.revision}
        revision = self._revision(name_there, merged, place)
        code = truth(merged.get(CODE), self._where(CODE, place)) if not isinstance(merged.get(CODE), list) else False
        if name_there in known and (revision is not None or code):
            self._note(f"{known[name_there]} is in the registry with a revision of its own and needs no code")
        if name_there not in self._names:
            named = known.get(name_there)
            self._names[name_there] = named or self._new_model(name_there, revision, code)
        return self._names[name_there]

    def _revision(self, hub_id: str, merged: Arguments, place: str) -> str | None:
        given = self._options.revisions.get(hub_id)
        if given is None and not is_nothing(merged.get(REVISION)):
            if isinstance(merged[REVISION], list):
                raise UserError(
                    f"{self._where(REVISION, place)} is a list, but a model has one; give --revision {hub_id}=COMMIT."
                )
            given = str(merged[REVISION])
        entry = self._models.get(self._names.get(hub_id, ""), {})
        if given is not None and entry.get("weights") == "hub" and entry.get("revision") != given:
            raise UserError(
                f"{self._where(REVISION, place)}: {hub_id} is asked for at {given} and at {entry.get('revision')}; a "
                "model has one revision, so make it two files."
            )
        return given

    def _new_model(self, hub_id: str, revision: str | None, code: bool) -> str:
        name = free_name(
            re.sub(r"[^A-Za-z0-9._-]", "--", hub_id).strip("-"), {**self._models, **load_registry()}, "model"
        )
        entry: dict[str, Any] = {"weights": "hub", "hub_id": hub_id}
        if revision is not None:
            entry["revision"] = revision
        if Path(hub_id).is_dir():
            entry = {"weights": "path", "path": hub_id}
        elif hub_id in self._options.shapes:
            where = f"--shape {hub_id}"
            shape = json_mapping(self._options.shapes[hub_id], where)
            entry["architecture"] = from_hf_config(shape, str(self._options.shapes[hub_id])).to_dict()
            entry["dtype"] = hf_config_dtype(shape, str(self._options.shapes[hub_id]))
        options = {"architecture": f"--shape {hub_id}=config.json", "revision": f"--revision {hub_id}=COMMIT"}
        if entry["weights"] == "hub" and (missing := [given for key, given in options.items() if key not in entry]):
            self._note(
                f"models.{name} is read from the hub at the first run and pinned in {LOCK}; "
                f"where no hub can be reached, give {' and '.join(missing)}"
            )
        if code:
            entry["trust_remote_code"] = True
        self._models[name] = entry
        return name

    # --- datasets

    def _dataset(self, merged: Arguments, place: str) -> Any:
        """Return the dataset, or the datasets as an axis, of a template and a number of output tokens."""
        where = self._where(TOKENS, place)
        given = DEFAULT_TOKENS if is_nothing(merged.get(TOKENS)) else merged[TOKENS]
        if is_nothing(merged.get(TOKENS)):
            self._note(f"{TOKENS} is not given: outputs of {DEFAULT_TOKENS:,} tokens, as there")
        tokens = each(given, lambda one: DEFAULT_TOKENS if is_nothing(one) else whole(one, where), where)
        templates = self._templates(merged.get(TEMPLATE), place)
        many = isinstance(tokens, list)
        names = [self._made(*one, output) for one in templates for output in (tokens if many else [tokens])]
        return list(dict.fromkeys(names)) if many or len(names) > 1 else names[0]

    def _templates(self, value: Any, place: str) -> list[tuple[str, str]]:
        """Return (name, text before the document) of one or several templates; without one, of the document alone."""
        where = self._where(TEMPLATE, place)
        if is_nothing(value):
            return [("documents", "")]
        if isinstance(value, str):
            return [("default", self._before(value, value, where))]
        if not isinstance(value, list) or not value:
            raise UserError(f"{where} has to be a text, [name, text] or a list of such pairs, not {value!r}.")
        pairs = value if isinstance(value[0], list) else [value]
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise UserError(f"{where} {pair!r} is no pair of a name and a text with {DOCUMENT}.")
        return [(str(pair[0]), self._before(pair[1], pair, where)) for pair in pairs]

    @staticmethod
    def _before(template: Any, shown: Any, where: str) -> str:
        if not isinstance(template, str) or DOCUMENT not in template:
            raise UserError(f"{where} {shown!r} is no pair of a name and a text with {DOCUMENT}.")
        return template.partition(DOCUMENT)[0]

    def _made(self, name: str, before: str, output: int) -> str:
        """Return the name of the dataset of a template and an output length, made where it is not there yet."""
        key = (name, before, output)
        if key in self._made_of:
            return self._made_of[key]
        same = any(other[:2] == key[:2] for other in self._made_of)
        own = free_name(f"{name[:40]}-{output}" if same else name, self._datasets, "documents")
        words = len(before.split())
        beginning = {"prefixes": 1, "prefix_tokens": max(1, round(words * TOKENS_PER_WORD))}
        self._datasets[own] = {
            "kind": "shared-prefix" if words else "random",
            "requests": self._requests,
            **(beginning if words else {}),
            "prompt_tokens": self._options.document_tokens,
            "output_tokens": output,
        }
        self._note(
            f"datasets.{own} stands for the prompts by made-up tokens: a template as a shared beginning, "
            f"documents of {self._options.document_tokens} tokens, outputs of {output}; for speculation name a dataset "
            "of real text"
        )
        self._made_of[key] = own
        return own

    @staticmethod
    def _most_gpus(fixed: Arguments, tiers: Mapping[str, Any]) -> int:
        most = 1
        for tier in tiers.values():
            for one in tier["experiments"].values():
                server = {**fixed.get("server", {}), **one.get("server", {})}
                product = 1
                for flag in ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"):
                    value = server.get(flag)
                    product *= max(one or 1 for one in (value if isinstance(value, list) else [value]))
                most = max(most, product)
        return most


def _unless_nothing(read: Callable[[Any, str], Any], where: str, value: Any) -> Any:
    """Return a flag's value, None for what says "none": the engine's own default."""
    return None if is_nothing(value) else read(value, where)


def _one_or_list(values: list[int]) -> int | list[int]:
    return values[0] if len(values) == 1 else list(dict.fromkeys(values))
