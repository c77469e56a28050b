"""Server arguments of the configuration as an argument list."""

from collections.abc import Mapping
from typing import Any

from memgap.canonical import canonical_json


def flag_list(arguments: Mapping[str, Any]) -> list[str]:
    """Return `--flag value` for each argument: true gives `--flag`, false `--no-flag`, a mapping its JSON."""
    flags: list[str] = []
    for name, value in sorted(arguments.items()):
        if value is True:
            flags.append(f"--{name}")
        elif value is False:
            flags.append(f"--no-{name}")
        elif isinstance(value, Mapping):
            flags += flag(name, canonical_json(value))
        else:
            flags += flag(name, value)
    return flags


def without_false(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without those that are false, for an engine whose flags have no `--no-` form."""
    return {name: value for name, value in arguments.items() if value is not False}


def flag(name: str, value: Any) -> list[str]:
    """Return a flag with its value; a text that begins with a hyphen is tied to it, or it would be read as a flag."""
    tied = isinstance(value, str) and value.startswith("-")
    return [f"--{name}={value}"] if tied else [f"--{name}", str(value)]


def model_flags(model: Mapping[str, Any], target: str) -> list[str]:
    """Return the flags that tell vLLM which model of a record to load, and how; `target` is its folder or hub id."""
    flags = [*flag("model", target), "--dtype", model["dtype"]]
    if model["weights"] == "synthetic":
        flags += ["--load-format", "dummy"]
    if model["weights"] == "hub" and model.get("revision"):
        flags += flag("revision", model["revision"])
    if model.get("trust_remote_code") is True:
        flags.append("--trust-remote-code")
    return flags
