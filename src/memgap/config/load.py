"""Checks a configuration against the schema, fills in defaults and checks what refers to what."""

import difflib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jsonschema

from memgap.config.numbers import in_form, text_hint, with_endless_rates
from memgap.config.safety import check_safe
from memgap.declared import figures, setting_of, tables
from memgap.engine.adapters import ADAPTERS
from memgap.errors import UserError
from memgap.own_yaml import own_yaml

Config = dict[str, Any]
LAST = 100
"""Place of a section in the reference unless its fragment names one."""
MISSING = "the key 'sweeps' is missing"
NO_FOLDER = ("null", "none", "None", "")
"""What Snakemake's `--config key=null` may become."""


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration: `schema.yaml`, and a section for each kind of measurement.

    A kind's `arguments.yaml` names its `section` and has either the `arguments` of its groups, which `fixed`,
    `experiments` and `zip` and the `shared` arguments surround, or the whole `group`; `settings` stand beside `fixed`,
    `top` beside the section.
    """
    whole = _loaded(files("memgap.config").joinpath("schema.yaml"))
    definitions = whole["$defs"]
    definitions["engine"]["properties"]["adapter"]["enum"] = list(ADAPTERS)
    shared = definitions.pop("shared")["properties"]
    for part, declared in (("figures", figures), ("tables", tables)):
        whole["properties"][part]["properties"] = declared.schema()
    properties: dict[str, Any] = {}
    for name, node in whole["properties"].items():
        properties[name] = node
        if name == "datasets":
            for fragment in _fragments():
                properties[fragment["section"]] = _section(fragment)
                properties |= fragment.get("top", {})
                definitions |= _definitions(fragment, shared)
    return {**whole, "properties": properties}


def sections() -> list[str]:
    """Return the sections of the configuration that say what is measured."""
    return [fragment["section"] for fragment in _fragments()]


@cache
def _fragments() -> list[dict[str, Any]]:
    package = files("memgap")
    folders = [*package.joinpath("kinds").iterdir(), *package.iterdir()]
    found = [_loaded(one) for folder in folders if (one := folder.joinpath("arguments.yaml")).is_file()]
    return sorted(found, key=lambda fragment: (fragment.get("place", LAST), fragment["section"]))


def _loaded(file: Traversable) -> dict[str, Any]:
    loaded: dict[str, Any] = own_yaml(file.read_text(encoding="utf-8"))
    return loaded


def _section(fragment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": fragment["description"],
        "type": "object",
        "default": {},
        "propertyNames": {"$ref": "#/$defs/name"},
        "additionalProperties": {"$ref": f"#/$defs/{fragment['section']}"},
    }


def _definitions(fragment: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definitions of a section: its groups, their arguments, and what these refer to."""
    section = fragment["section"]
    own = dict(fragment.get("definitions", {}))
    if "group" in fragment:
        return {section: fragment["group"], **own}
    arguments = f"{section}_arguments"
    taken = {name: shared[name] for name in fragment["shared"]}
    ours = {"$ref": f"#/$defs/{arguments}"}
    group = {
        "type": "object",
        "additionalProperties": False,
        "required": ["fixed"],
        "properties": {
            "fixed": {
                "description": "Arguments of every experiment; every list is an axis and axes are multiplied.",
                **ours,
            },
            "experiments": {"$ref": "#/$defs/experiments", "additionalProperties": ours},
            **fragment.get("settings", {}),
            "zip": {"$ref": "#/$defs/zip"},
        },
    }
    own[arguments] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**taken, **fragment["arguments"]},
    }
    return {section: group, **own}


def check_config(config: Mapping[str, Any]) -> Config:
    """Return a copy of `config` with all defaults filled in.

    Raises UserError with one sentence that names the place and, for unknown names, the known ones.
    """
    config = _without_overlays(with_endless_rates(config))
    check_safe(config)
    checked: Config = in_form(deepcopy(dict(config)), schema(), schema()["$defs"], _fits)
    if not has_points(checked):
        where, what = ("sweeps", "{} should be non-empty") if "sweeps" in checked else ("top level", MISSING)
        raise UserError(f"config: {where}: {what}.")
    validator = jsonschema.Draft202012Validator(schema())
    errors = sorted(validator.iter_errors(checked), key=lambda error: (-len(error.absolute_path), str(error.path)))
    if errors:
        raise UserError(_sentence(_most_specific(errors[0])))
    _fill_defaults(checked, schema())
    for folder in ("recorded", "paper_reference"):
        if checked[folder] in NO_FOLDER:
            checked[folder] = None
    _check_references(checked)
    return checked


def checked_part(value: Any, definition: str, where: str, fill: bool = False) -> Any:
    """Return a part of a configuration that a definition of the schema describes, its numbers in their form.

    With `fill` defaults are filled in.

    Raises UserError with one sentence that begins with `where`.
    """
    node = schema()["$defs"][definition]
    formed = in_form(deepcopy(value), node, schema()["$defs"], _fits)
    validator = jsonschema.Draft202012Validator({**node, "$defs": schema()["$defs"]})
    errors = sorted(validator.iter_errors(formed), key=lambda error: (-len(error.absolute_path), str(error.path)))
    if errors:
        raise UserError(_sentence(_most_specific(errors[0]), where))
    if fill:
        _fill_defaults(formed, node)
    return formed


def _without_overlays(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration without labs that have no question: a file of sizes changes labs that others describe."""
    labs = config.get("labs")
    if not isinstance(labs, Mapping):
        return config
    asked = {name: one for name, one in labs.items() if not isinstance(one, Mapping) or "question" in one}
    if labs and not asked:
        raise UserError("config: labs: none has a `question`; give the file of a lab before that of a size.")
    return {**config, "labs": asked}


def has_points(config: Mapping[str, Any]) -> bool:
    """Whether a configuration says itself what is measured, in any section that a kind of measurement reads."""
    return any(config.get(section) for section in sections())


def known(name: str, names: Iterable[str], what: str, where: str) -> None:
    """Raise UserError, naming the known names, unless `name` is one of `names`."""
    listed = sorted(names)
    if name not in listed:
        raise UserError(
            f"{where}: unknown {what} {name!r}{_near(name, listed)}; known are {', '.join(listed) or 'none'}."
        )


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _most_specific(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Of an `anyOf`, return the failure of the branch that fits best."""
    while error.context:
        deeper = [branch for branch in error.context if branch.validator != "type"]
        if not deeper:
            return error
        error = max(deeper, key=lambda branch: len(branch.absolute_path))
    return error


def _sentence(error: jsonschema.ValidationError, inside: str = "") -> str:
    place = ".".join(str(part) for part in error.absolute_path)
    where = f"{inside}{place and f': {place}'}" if inside else f"config: {place or 'top level'}"
    rule, node = error.validator, error.schema
    if not isinstance(node, Mapping):
        return f"{where}: {error.message}."
    if rule == "additionalProperties" and isinstance(error.instance, dict):
        allowed = sorted(node.get("properties", {}))
        extra = sorted(set(map(str, error.instance)) - set(allowed))
        return f"{where}: unknown key {extra[0]!r}{_near(extra[0], allowed)}; known are {', '.join(allowed)}."
    if rule == "required" and isinstance(error.instance, dict):
        missing = sorted(set(node["required"]) - set(error.instance))
        return f"{where}: the key {missing[0]!r} is missing."
    if rule == "enum":
        allowed = [str(value) for value in node["enum"]]
        return f"{where}: {error.instance!r} is none of {', '.join(allowed)}{_near(str(error.instance), allowed)}."
    if rule == "pattern":
        hint = node.get("description", f"It has to match {node['pattern']}")
        return f"{where}: {error.instance!r} cannot be a name here. {hint.rstrip('.')}."
    if rule in ("anyOf", "type") and (hint := text_hint(error.instance, node)):
        return f"{where}: {hint}."
    if rule == "anyOf":
        hint = node.get("description", "")
        return (
            f"{where}: {error.instance!r} does not fit. {hint.rstrip('.')}." if hint else f"{where}: {error.message}."
        )
    return f"{where}: {error.message}."


def _fits(value: Any, node: Mapping[str, Any]) -> bool:
    """Whether a value is valid by a part of the schema."""
    return bool(jsonschema.Draft202012Validator({**node, "$defs": schema()["$defs"]}).is_valid(value))


def _fill_defaults(value: Any, node: Mapping[str, Any]) -> None:
    if "$ref" in node:
        _fill_defaults(value, schema()["$defs"][node["$ref"].rsplit("/", 1)[1]])
    for branch in node.get("anyOf", ()):
        if _fits(value, branch):
            _fill_defaults(value, branch)
            break
    if not isinstance(value, dict):
        return
    properties = node.get("properties", {})
    for name, child in properties.items():
        default = child.get(
            "default", schema()["$defs"].get(child.get("$ref", "").rsplit("/", 1)[-1], {}).get("default")
        )
        if name not in value and ("default" in child or default is not None):
            value[name] = deepcopy(default)
        if name in value:
            _fill_defaults(value[name], child)
    rest = node.get("additionalProperties")
    if isinstance(rest, Mapping):
        for name in value.keys() - properties.keys():
            _fill_defaults(value[name], rest)


def _check_references(config: Config) -> None:
    for part in ("figures", "tables"):
        for name, settings in config[part].items():
            for key, named in settings.items():
                setting = setting_of(key)
                for one in named if setting.many else [named]:
                    known(one, config[setting.section], setting.what, f"config: {part}.{name}.{key}")
    for fleet, settings in config["fleets"].items():
        for sweep in settings["sweeps"]:
            known(sweep, config["sweeps"], "sweep", f"config: fleets.{fleet}.sweeps")
