"""Expands a sweep's arguments: every list is an axis, axes are multiplied, zipped axes go in step."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memgap.config.load import known
from memgap.errors import UserError

NESTED = ("server", "env", "load")
Arguments = dict[str, Any]


def expand_sweep(name: str, sweep: Mapping[str, Any], section: str = "sweeps") -> Iterator[tuple[str, Arguments]]:
    """Yield (experiment name, arguments without any list) for each combination, in the order written.

    `fixed` arguments are overridden by the experiment's; in `server`, null removes a fixed flag.
    Raises UserError, naming the `section` of the configuration, where a zip names no axis or axes of different lengths.
    """
    for experiment, own in sweep["experiments"].items():
        merged = merge_arguments(sweep["fixed"], own)
        where = f"config: {section}.{name}.zip"
        for combination in combinations(_flatten(merged), sweep["zip"], where):
            yield experiment, _nest(combination)


def merge_arguments(fixed: Mapping[str, Any], own: Mapping[str, Any]) -> Arguments:
    """Return `fixed` overridden by `own`; the nested mappings are merged key by key and nulls in `server` dropped."""
    merged: Arguments = {**fixed, **own}
    for part in NESTED:
        if part in merged:
            merged[part] = {**fixed.get(part, {}), **own.get(part, {})}
    if "server" in merged:
        merged["server"] = {flag: value for flag, value in merged["server"].items() if value is not None}
    return merged


def _flatten(arguments: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in arguments.items():
        if key in NESTED:
            flat.update({(key, inner): inner_value for inner, inner_value in value.items()})
        else:
            flat[(key,)] = value
    return flat


def _nest(flat: Mapping[tuple[str, ...], Any]) -> Arguments:
    nested: Arguments = {}
    for path, value in flat.items():
        if len(path) == 2:
            nested.setdefault(path[0], {})[path[1]] = value
        else:
            nested[path[0]] = value
    return nested


def combinations(
    flat: Mapping[tuple[str, ...], Any], zipped: Sequence[Sequence[str]], where: str
) -> Iterator[dict[tuple[str, ...], Any]]:
    """Yield every choice of one value of each list by path, `zipped` ones in step; raises UserError, see above."""
    axes = {path: value for path, value in flat.items() if isinstance(value, list)}
    dotted = {".".join(path): path for path in axes}
    groups: list[list[tuple[str, ...]]] = []
    used: set[tuple[str, ...]] = set()
    for names in zipped:
        for name in names:
            known(name, dotted, "axis", where)
        group = [dotted[name] for name in names]
        lengths = {name: len(axes[dotted[name]]) for name in names}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise UserError(f"{where}: zipped axes need equally many values; {listed}.")
        if used & set(group) or len(set(group)) < len(group):
            raise UserError(f"{where}: an axis can be in one group only; {', '.join(names)} repeats one.")
        used |= set(group)
        groups.append(group)
    groups += [[path] for path in axes if path not in used]
    constants = {path: value for path, value in flat.items() if path not in axes}
    for choice in itertools.product(*(zip(*(axes[path] for path in group), strict=True) for group in groups)):
        chosen = {
            path: value
            for group, values in zip(groups, choice, strict=True)
            for path, value in zip(group, values, strict=True)
        }
        yield {path: chosen.get(path, constants.get(path)) for path in flat}
