"""From a config's dataset entry to the full description that a point record holds.

The key of a dataset covers the declared description only, so that it is known before any file is read.
For real conversations this means that the file's content is not in the key: its size and SHA-256 are written
beside the stored dataset instead (`memgap.datasets.files`), and a changed file needs a new `revision` or
`path`.
"""

from collections.abc import Mapping
from typing import Any

from memgap.canonical import content_key
from memgap.datasets.texts import check_own, own_texts
from memgap.datasets.trace_units import SECONDS
from memgap.errors import UserError
from memgap.models.architecture import MINIMUM_VOCABULARY
from memgap.models.fields import Fields, suggest
from memgap.models.synthetic import speaks_words

GENERATOR = 1
"""Raised whenever the same description would build other prompts."""

KINDS = ("random", "sharegpt", "sharegpt-like", "shared-prefix", "multi-turn", "mixed", "trace", "texts")
SHARED_PREFIX_KINDS = ("shared-prefix", "multi-turn", "trace", "texts")
"""Kinds whose prompts share prefixes on purpose or by nature, so that prefix-cache hits belong to the workload."""

RESERVED_IDS = 10
"""Made-up prompts use no id below this one: models keep their special tokens there."""

WARMUP_OUTPUT_TOKENS = 32
"""Most tokens that are generated for a warm-up prompt."""

WARMUP_RESERVE = 256
"""Most warm-up prompts a dataset has room for."""

SHAREGPT_HUB_ID = "anon8231489123/ShareGPT_Vicuna_unfiltered"
SHAREGPT_HUB_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"
SHAREGPT_REVISION = "192ab2185289094fc556ec8ce5ce1e8e587154ca"

_PRUNING: Mapping[str, int] = {
    "min_prompt_tokens": 4,
    "min_output_tokens": 4,
    "max_prompt_tokens": 1024,
    "max_total_tokens": 2048,
}
"""Limits of the published serving benchmarks: requests outside them are dropped."""

_KNOWN: Mapping[str, tuple[str, ...]] = {
    "sharegpt-like": (
        "mean_prompt_tokens",
        "mean_output_tokens",
        "sigma_prompt",
        "sigma_output",
        *_PRUNING,
    ),
    "random": ("prompt_tokens", "output_tokens"),
    "shared-prefix": ("prompt_tokens", "output_tokens", "prefixes", "prefix_tokens"),
    "multi-turn": ("prompt_tokens", "output_tokens", "turns"),
    "mixed": ("parts",),
    "trace": ("path", "speed", "time_unit", "block_tokens", *_PRUNING),
    "texts": ("path", "output_tokens"),
    "sharegpt": ("path", "hub_id", "hub_file", "revision", "tokenizer", "token_ids", *_PRUNING),
}


def resolve_dataset(
    name: str,
    config_datasets: Mapping[str, Any],
    *,
    requests: int,
    vocabulary_size: int,
    max_model_len: int | None = None,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the "dataset" part of a point record: `name`, `kind`, every field of the kind, and `key`.

    `config_datasets` is the config's `datasets:` mapping. `requests` is how many measured requests the
    dataset holds, `vocabulary_size` the model's (ids stay below it), `max_model_len` the server's limit in
    tokens, which lowers the default of `max_total_tokens` so that every prompt and its output fit. `model` is
    the "model" part of the record; the kind `sharegpt` takes its tokenizer from there unless the entry names
    one.

    The key covers everything but the name. No file is opened. Raises UserError for unknown names and fields
    and for lengths that cannot be met.
    """
    if not isinstance(config_datasets, Mapping):
        raise UserError(f"datasets: got {config_datasets!r}, but must be a mapping of dataset names to their fields")
    if name not in config_datasets:
        raise UserError(f"unknown dataset {name!r} ({suggest(name, [str(known) for known in config_datasets])})")
    where = f"datasets.{name}"
    entry = config_datasets[name]
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: got {entry!r}, but must be a mapping of fields with a kind")
    kind = Fields({"kind": entry.get("kind")}, where, ("kind",)).text("kind", choices=KINDS)
    given = Fields(entry, where, ("kind", "seed", *_KNOWN[kind]))
    if requests < 1:
        raise UserError(f"{where}: {requests} requests are asked for, but a dataset holds at least 1")
    if vocabulary_size < MINIMUM_VOCABULARY:
        raise UserError(f"{where}: a vocabulary of {vocabulary_size} ids is too small; at least {MINIMUM_VOCABULARY}")
    spec: dict[str, Any] = {
        "kind": kind,
        "generator": GENERATOR,
        "requests": requests,
        "vocabulary_size": vocabulary_size,
        "seed": given.integer("seed", minimum=0, default=0),
    }
    if kind == "random":
        spec |= _random(given, max_model_len)
    elif kind in ("shared-prefix", "multi-turn"):
        spec |= _structured(given, kind, requests, max_model_len)
    elif kind == "mixed":
        spec["parts"] = _parts(given, max_model_len)
    elif kind == "trace":
        spec |= _trace(given, max_model_len)
    elif kind == "sharegpt-like":
        spec |= _sharegpt_like(given, max_model_len)
    elif kind == "texts":
        spec |= _texts(given, requests, max_model_len)
    else:
        spec |= _sharegpt(given, max_model_len, model)
    if kind != "texts":
        _check_distinct_starts(spec, where)
    return {"name": name, **spec, "key": content_key(spec)}


def spec_fits_key(spec: Mapping[str, Any]) -> bool:
    """Tell whether the `key` of a dataset's description is that of its other fields."""
    declared = {name: value for name, value in spec.items() if name not in ("name", "key")}
    return bool(spec.get("key") == content_key(declared))


def start_digits(vocabulary_size: int, requests: int) -> int:
    """Return how many leading tokens it takes to give every prompt, warm-up included, a start of its own."""
    usable = vocabulary_size - RESERVED_IDS
    digits = 1
    while usable**digits < requests + WARMUP_RESERVE:
        digits += 1
    return digits


def shortest_prompt(spec: Mapping[str, Any]) -> int:
    """Return the least prompt length in tokens that `spec` allows."""
    if "parts" in spec:
        return min(int(one["prompt_tokens"]["min"]) for one in spec["parts"])
    return int(spec["prompt_tokens"]["min"] if "prompt_tokens" in spec else spec["min_prompt_tokens"])


def _check_distinct_starts(spec: Mapping[str, Any], where: str) -> None:
    needed = start_digits(spec["vocabulary_size"], spec["requests"])
    if shortest_prompt(spec) < needed:
        raise UserError(
            f"{where}: prompts of {shortest_prompt(spec)} tokens are too short to give each of "
            f"{spec['requests']} requests a start of its own in a vocabulary of {spec['vocabulary_size']} "
            f"ids; they need at least {needed} tokens"
        )


def _pruning(given: Fields, max_model_len: int | None) -> dict[str, Any]:
    limits = {name: given.integer(name, minimum=1, default=default) for name, default in _PRUNING.items()}
    if max_model_len is not None and limits["max_total_tokens"] > max_model_len:
        if given.given("max_total_tokens"):
            raise given.error("max_total_tokens", f"at most the server's max-model-len of {max_model_len}")
        limits["max_total_tokens"] = max_model_len
    if limits["min_prompt_tokens"] > limits["max_prompt_tokens"]:
        raise given.error("max_prompt_tokens", f"at least min_prompt_tokens ({limits['min_prompt_tokens']})")
    if limits["min_prompt_tokens"] + limits["min_output_tokens"] > limits["max_total_tokens"]:
        raise UserError(
            f"{given.where}: max_total_tokens is {limits['max_total_tokens']}, but the shortest allowed "
            f"request has {limits['min_prompt_tokens'] + limits['min_output_tokens']} tokens"
        )
    return limits


def _trace(given: Fields, max_model_len: int | None) -> dict[str, Any]:
    """Return a trace's fields; what its reader finds by itself is there only where it is given."""
    spec = {"path": given.text("path"), "speed": given.number("speed", above=0.0, default=1.0)}
    if given.given("time_unit"):
        spec["time_unit"] = given.text("time_unit", choices=tuple(SECONDS))
    if given.given("block_tokens"):
        spec["block_tokens"] = given.integer("block_tokens", minimum=1)
    return {**spec, **_pruning(given, max_model_len)}


def _texts(given: Fields, requests: int, max_model_len: int | None) -> dict[str, Any]:
    """Return the fields of prompts of text; `edition` stands for the content of the project's own."""
    path, limits = given.optional_text("path"), _range(given, "output_tokens")
    if path is None:
        check_own(requests, given.where)
    if max_model_len is not None and limits["max"] >= max_model_len:
        raise given.error("output_tokens", f"below the server's max-model-len of {max_model_len}")
    return {"path": path, "edition": own_texts()[1] if path is None else None, "output_tokens": limits}


def _sharegpt_like(given: Fields, max_model_len: int | None) -> dict[str, Any]:
    limits = _pruning(given, max_model_len)
    spec = {
        "mean_prompt_tokens": given.number("mean_prompt_tokens", above=0.0, default=161.0),
        "mean_output_tokens": given.number("mean_output_tokens", above=0.0, default=338.0),
        "sigma_prompt": given.number("sigma_prompt", above=0.0, default=1.3),
        "sigma_output": given.number("sigma_output", above=0.0, default=0.9),
        **limits,
    }
    for side, most in (
        (
            "prompt",
            min(limits["max_prompt_tokens"], limits["max_total_tokens"] - limits["min_output_tokens"]),
        ),
        ("output", limits["max_total_tokens"] - limits["min_prompt_tokens"]),
    ):
        mean, least = spec[f"mean_{side}_tokens"], limits[f"min_{side}_tokens"]
        if not least < mean < most:
            raise UserError(
                f"{given.where}: mean_{side}_tokens is {mean:g}, but must lie between {least} and {most}, "
                "the limits of a request"
            )
    if spec["mean_prompt_tokens"] + spec["mean_output_tokens"] >= limits["max_total_tokens"]:
        raise UserError(
            f"{given.where}: mean_prompt_tokens and mean_output_tokens add up to "
            f"{spec['mean_prompt_tokens'] + spec['mean_output_tokens']:g}, "
            f"but must stay below max_total_tokens ({limits['max_total_tokens']})"
        )
    return spec


def _random(given: Fields, max_model_len: int | None) -> dict[str, Any]:
    spec = {name: _range(given, name) for name in ("prompt_tokens", "output_tokens")}
    longest = spec["prompt_tokens"]["max"] + spec["output_tokens"]["max"]
    if max_model_len is not None and longest > max_model_len:
        raise UserError(
            f"{given.where}: the longest request has {longest} tokens, "
            f"but the server's max-model-len is {max_model_len}"
        )
    return spec


def _structured(given: Fields, kind: str, requests: int, max_model_len: int | None) -> dict[str, Any]:
    spec: dict[str, Any] = {name: _range(given, name) for name in ("prompt_tokens", "output_tokens")}
    prompt, output = spec["prompt_tokens"]["max"], spec["output_tokens"]["max"]
    if kind == "shared-prefix":
        spec["prefixes"] = given.integer("prefixes", minimum=1)
        spec["prefix_tokens"] = given.integer("prefix_tokens", minimum=0)
        longest = spec["prefix_tokens"] + prompt + output
    else:
        spec["turns"] = given.integer("turns", minimum=2)
        longest = spec["turns"] * (prompt + output)
        if requests % spec["turns"]:
            raise UserError(f"{given.where}: requests is {requests}, but must be a multiple of turns ({spec['turns']})")
    if max_model_len is not None and longest > max_model_len:
        raise UserError(
            f"{given.where}: the longest request has {longest} tokens, "
            f"but the server's max-model-len is {max_model_len}"
        )
    return spec


def _parts(given: Fields, max_model_len: int | None) -> list[dict[str, Any]]:
    value = given.values.get("parts")
    if not isinstance(value, list) or len(value) < 2:
        raise given.error("parts", "a list of at least two mappings with weight, prompt_tokens and output_tokens")
    parts = []
    for number, entry in enumerate(value):
        part = Fields(entry, f"{given.where}.parts[{number}]", ("name", "weight", "prompt_tokens", "output_tokens"))
        named = {"name": part.text("name")} if part.given("name") else {}
        parts.append({**named, "weight": part.number("weight", above=0.0), **_random(part, max_model_len)})
    names = [part["name"] for part in parts if "name" in part]
    if len(set(names)) < len(names):
        raise given.error("parts", "parts of different names")
    return parts


def _range(given: Fields, name: str) -> dict[str, Any]:
    value = given.values.get(name)
    if not isinstance(value, Mapping):
        length = given.integer(name, minimum=1)
        return {"min": length, "max": length}
    if "choices" in value:
        choices = Fields(value, f"{given.where}.{name}", ("choices",)).values["choices"]
        if not isinstance(choices, list) or not choices or any(type(one) is not int or one < 1 for one in choices):
            raise given.error(name, "lengths of at least 1 in `choices`")
        return {"min": min(choices), "max": max(choices), "choices": choices}
    limits = Fields(value, f"{given.where}.{name}", ("min", "max"))
    least = limits.integer("min", minimum=1)
    return {"min": least, "max": limits.integer("max", minimum=least)}


def _sharegpt(given: Fields, max_model_len: int | None, model: Mapping[str, Any] | None) -> dict[str, Any]:
    path = given.optional_text("path")
    for name in ("hub_id", "hub_file", "revision"):
        if path is not None and given.given(name):
            raise UserError(f"{given.where}: path and {name} are both given; drop one of the two")
    hub_id = None if path else given.text("hub_id", default=SHAREGPT_HUB_ID)
    published = hub_id == SHAREGPT_HUB_ID
    synthetic = model is not None and speaks_words(model)
    return {
        "path": path,
        "hub_id": hub_id,
        "hub_file": None if path else given.text("hub_file", default=SHAREGPT_HUB_FILE),
        "revision": None if path else given.text("revision", **({"default": SHAREGPT_REVISION} if published else {})),
        "tokenizer": _tokenizer(given, model),
        "token_ids": given.text("token_ids", choices=("text", "random"), default="random" if synthetic else "text"),
        **_pruning(given, max_model_len),
    }


def _tokenizer(given: Fields, model: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Return where tokenizer.json is: {"path", "hub_id", "revision"}, either path or the other two."""
    if given.given("tokenizer"):
        value = given.values["tokenizer"]
        if isinstance(value, str) and value:
            value = {"path": value}
        own = Fields(value, f"{given.where}.tokenizer", ("path", "hub_id", "revision"))
        path = own.optional_text("path")
        if path is not None and (own.given("hub_id") or own.given("revision")):
            raise UserError(f"{own.where}: path and a hub repository are both given; drop one of the two")
        if path is not None:
            return {"path": path, "hub_id": None, "revision": None}
        return {"path": None, "hub_id": own.text("hub_id"), "revision": own.text("revision")}
    if model is not None and model.get("weights") == "path":
        return {"path": str(model["path"]), "hub_id": None, "revision": None}
    if model is not None and model.get("weights") == "hub":
        return {"path": None, "hub_id": str(model["hub_id"]), "revision": str(model["revision"])}
    why, other = "has synthetic weights and so no tokenizer for real text", "sharegpt-like"
    if model is not None and model.get("weights") == "package":
        why, other = "is made from a package, so that its tokenizer is not there yet", "texts"
    raise UserError(
        f"{given.where}: tokenizer is missing; the model {why}: give the folder of a real one, or use kind {other}"
    )
