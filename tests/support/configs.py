"""Configurations with one entry changed."""

from collections.abc import Callable
from typing import Any

from tests.support.records import small_config


def broken(path: str, value: Any) -> dict[str, Any]:
    """Return the small configuration with one entry replaced."""
    config = small_config()
    *parents, last = path.split(".")
    place = config
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return config


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets one entry of a configuration."""

    def apply(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            config = config[part]
        config[last] = value

    return apply
