"""Numbers of a configuration in the form that the schema asks for: whole ones whole, `1e3` a number.

YAML 1.1 takes 1e3 for a text (it wants 1.0e+3) and 1.0e+3 for 1000.0, where JSON Schema lets 1000.0 through as whole.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from memgap.own_yaml import as_number

Node = Mapping[str, Any]
ENDLESS = "inf"
RATES = ("rate_req_s", "rate_of_capacity")
WHOLE_FLAGS = frozenset(
    (
        *("max-num-seqs", "max-num-batched-tokens", "max-model-len", "block-size", "seed", "kv-cache-memory-bytes"),
        *("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "num-gpu-blocks-override"),
        "prefill-context-parallel-size",
        *("max-running-requests", "max-total-tokens", "max-prefill-tokens", "chunked-prefill-size", "context-length"),
        *("tp-size", "pp-size", "dp-size", "api-server-count", "max-num-partial-prefills"),
    )
)
"""Flags of servers whose values are whole numbers: 1024.0 is 1024 there. Others may be fractions and stay."""


def with_endless_rates(value: Any, key: str = "", within: tuple[int, ...] = ()) -> Any:
    """Return `value` with an infinite request rate as the text `inf`, since JSON, which plans are kept in, has none.

    `within` are the ids of what it lies in: what holds itself stays as it is, for `check_safe` to refuse.
    """
    if id(value) in within:
        return value
    if isinstance(value, Mapping):
        return {name: with_endless_rates(one, str(name), (*within, id(value))) for name, one in value.items()}
    if isinstance(value, list):
        return [with_endless_rates(one, key, (*within, id(value))) for one in value]
    return ENDLESS if value == math.inf and key.rpartition(".")[2] in RATES else value


def in_form(value: Any, node: Node, definitions: Mapping[str, Node], fits: Callable[[Any, Node], bool]) -> Any:
    """Return `value` with its numbers in the form of the schema `node`; what does not fit stays as it is.

    `fits` tells whether a value is valid by a schema.
    """
    if "$ref" in node:
        node = {**definitions[str(node["$ref"]).rsplit("/", 1)[1]], **{k: v for k, v in node.items() if k != "$ref"}}
    for branch in node.get("anyOf", ()):
        formed = in_form(value, branch, definitions, fits)
        if fits(formed, branch):
            return formed
    if isinstance(value, dict):
        properties, rest = node.get("properties", {}), node.get("additionalProperties")
        return {
            name: _flag(name, one)
            if _is_flags(node)
            else in_form(one, properties.get(name, rest if isinstance(rest, Mapping) else {}), definitions, fits)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [in_form(one, node.get("items", {}), definitions, fits) for one in value]
    return _scalar(value, node.get("type", ()))


def _scalar(value: Any, types: str | list[str]) -> Any:
    kinds = (types,) if isinstance(types, str) else tuple(types)
    if isinstance(value, str) and "string" not in kinds and {"integer", "number"} & {*kinds}:
        number = as_number(value)
        value = value if number is None else number
    if isinstance(value, float) and "integer" in kinds and "number" not in kinds and value.is_integer():
        return int(value)
    return value


def _is_flags(node: Node) -> bool:
    """Whether a mapping holds flags of a server, whose names have hyphens and whose values can be anything."""
    pattern: object = node.get("propertyNames", {}).get("pattern")
    return pattern == "^[a-z0-9][a-z0-9-]*$"


def _flag(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_flag(name, one) for one in value]
    return _scalar(value, "integer" if name in WHOLE_FLAGS else "number")


def text_hint(value: Any, node: Node) -> str | None:
    """Return what to write where a text belongs and YAML found something else; None where that is not the fault."""
    branches = [node, *node.get("anyOf", ())]
    if isinstance(value, list):
        value = next((one for one in value if not isinstance(one, str)), "")
        branches = [one.get("items", {}) for one in branches]
    if not isinstance(value, bool | int | float | None) or not any(_is_text(one) for one in branches):
        return None
    if value is None:
        return "nothing stands there; write '' for an empty text"
    kind, written = ("a truth value", str(value).lower()) if isinstance(value, bool) else ("a number", str(value))
    return f"{written} is not of type 'string': YAML reads {kind}; put it in quotes as it is meant, such as '{written}'"


def _is_text(node: Node) -> bool:
    return node.get("type") == "string" or node.get("type") == ["string", "null"]
