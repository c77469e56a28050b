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
            flags += [f"--{name}", canonical_json(value)]
        else:
            flags += [f"--{name}", str(value)]
    return flags
