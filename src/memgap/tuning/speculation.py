"""Speculative decoding in a tuning: short names, and which numbers may be measured at all.

How many drafted tokens are accepted depends on the text and the weights. With dummy weights or random prompts the
acceptance is an accident, and so is the speed: such points are refused. vLLM's synthetic acceptance sets the share of a
draft model's tokens that are accepted, which is labelled; methods that draft from the text need text all the same.
"""

from collections.abc import Mapping
from typing import Any

from memgap.engine.adapters import ADAPTERS
from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.models.synthetic import speaks_words

FLAGS = frozenset(one.flags.speculation for one in ADAPTERS.values() if one.flags.speculation)
"""What the engines call it."""
PROMPT_METHODS = ("ngram", "ngram_gpu", "suffix")
"""Methods that draft from the text itself, without a model."""


def speculative_config(flags: GivenFlags) -> Mapping[str, Any] | None:
    """Return the speculative configuration among server flags, None without one."""
    found = flags.get("speculation")
    return found if isinstance(found, Mapping) else None


def is_synthetic(config: Mapping[str, Any]) -> bool:
    """Whether tokens are accepted by a set rate and not by what the text is."""
    return config.get("rejection_sample_method") == "synthetic"


def segment(config: Mapping[str, Any] | None) -> str:
    """Return the short name: none, ngram_K, suffix_K, METHOD_K or the last part of the draft model's name and _K."""
    if not config:
        return "none"
    method, tokens = config.get("method"), config.get("num_speculative_tokens", "auto")
    named = method if method in PROMPT_METHODS or not config.get("model") else str(config["model"]).rsplit("/", 1)[-1]
    name = f"{named or 'draft'}_{tokens}"
    if not is_synthetic(config):
        return name
    length, rates = config.get("synthetic_acceptance_length"), config.get("synthetic_acceptance_rates")
    accepted = f"length {length:g}" if length is not None else "rates " + "/".join(f"{one:g}" for one in rates or ())
    return f"{name} (synthetic acceptance, {accepted})"


def check_speculation(flags: GivenFlags, record: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a speculative configuration cannot be, or its numbers would be an accident."""
    given, name = flags.get("speculation"), flags.name("speculation")
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {name} has to be a mapping such as {{method: ngram, ...}}, not {given!r}.")
    tokens = given.get("num_speculative_tokens")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise UserError(f"{where}: {name}.num_speculative_tokens has to be 1 or more, not {tokens!r}.")
    if "method" not in given and "model" not in given:
        raise UserError(f"{where}: {name} names neither a method nor a draft model; give one.")
    if is_synthetic(given) and given.get("method") not in PROMPT_METHODS:
        return
    if speaks_words(record["model"]):
        raise UserError(
            f"{where}: {segment(given)} on {record['model']['name']}, whose weights are made up, would measure an "
            "accidental acceptance; use real weights, or a draft model with rejection_sample_method synthetic."
        )
    dataset = record["dataset"]
    if dataset["kind"] != "texts" and dataset.get("token_ids") != "text":
        raise UserError(
            f"{where}: {segment(given)} depends on the text, but dataset {dataset['name']} has random tokens; use a "
            "dataset of kind texts or one of kind sharegpt with token_ids text, or a draft model with "
            "rejection_sample_method synthetic."
        )
