"""Models known by name, and what a config makes of them."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.models.architecture import DECODER, WEIGHT_DTYPES, ModelArchitecture
from memgap.models.fields import Fields, suggest
from memgap.models.formats import quantization_config
from memgap.models.hf_config import from_hf_config, hf_config_dtype
from memgap.models.hub import BESIDE, HubModel, hub_model
from memgap.models.keys import ALIASES, NESTED
from memgap.models.package import package_of
from memgap.own_yaml import own_yaml

WEIGHTS = ("synthetic", "random-file", "package", "hub", "path")
MADE_HERE = ("synthetic", "random-file", "package")
"""Weights of folders that are written here."""

_ENTRY_FIELDS = (
    *("base", "architecture", "quantization", "weights", "path", "hub_id", "revision", "dtype", "trust_remote_code"),
)


@dataclass(frozen=True)
class RegistryEntry:
    """One known model; `hub_id` is None for a made-up one, `revision` where no commit is pinned."""

    name: str
    hub_id: str | None
    revision: str | None
    dtype: str
    architecture: ModelArchitecture


@functools.cache
def load_registry() -> Mapping[str, RegistryEntry]:
    """Return the known models by name; raises UserError where the packaged file is damaged."""
    text = resources.files("memgap.models").joinpath("registry.yaml").read_text(encoding="utf-8")
    entries: dict[str, RegistryEntry] = {}
    for name, values in own_yaml(text).items():
        where = f"model registry, {name}"
        given = Fields(values, where, ("hub_id", "revision", "dtype", "architecture"))
        entries[name] = RegistryEntry(
            name=name,
            hub_id=given.optional_text("hub_id"),
            revision=given.optional_text("revision"),
            dtype=given.text("dtype", choices=WEIGHT_DTYPES),
            architecture=ModelArchitecture.from_dict(given.values.get("architecture"), f"{where}, architecture"),
        )
    return entries


def resolve_model(name: str, config_models: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the "model" part of a point record for the model called `name`.

    `config_models` is the config's `models:` mapping; an entry there overrides or defines a model:
    `base` (a registry name; the entry's own name where that is known), `architecture` (fields that override
    the base's, or the whole shape), `quantization` (a format of weights by name, or a `quantization_config`), `weights`
    (synthetic, random-file, package, hub or path), `path`, `hub_id`, `revision` and `dtype`. A `hub_id` alone is
    enough: shape, type and commit are read from the hub then, and pinned (see `memgap.models.hub`).
    Without `weights`, a `path` means path, a hub id with a commit means hub, and neither means synthetic.
    What does not bear on the chosen weights is None, so that it cannot change a point's key.
    `trust_remote_code` is in the record only where it is true.

    Raises UserError for unknown names and fields and for values that contradict each other.
    """
    config_models = {} if config_models is None else config_models
    if not isinstance(config_models, Mapping):
        raise UserError(f"models: got {config_models!r}, but must be a mapping of model names to their fields")
    registry = load_registry()
    if name not in config_models and name not in registry:
        raise UserError(f"unknown model {name!r} ({suggest(name, {*registry, *map(str, config_models)})})")
    where = f"models.{name}"
    given = Fields(config_models.get(name) or {}, where, _ENTRY_FIELDS)
    base = _base(name, given, registry)
    path = given.optional_text("path")
    hub_id = given.optional_text("hub_id") or (base.hub_id if base else None)
    pinned = given.given("hub_id") or (base is not None and base.revision is not None)
    weights = given.text("weights", choices=WEIGHTS, default="path" if path else "hub" if pinned else "synthetic")
    _check_weights(given, weights, path, hub_id)
    described = _shape_given(given, base)
    hf_config = _own_config(path, where) if path and weights == "path" and not described else None
    on_hub = _on_hub(given, base, hub_id, described) if weights == "hub" else None
    told = on_hub if not described else None
    shape = ModelArchitecture.from_dict(told.architecture, where) if told else _architecture(given, base, hf_config)
    architecture = _quantized(given, shape, hf_config or told)
    return {
        "name": name,
        "weights": weights,
        "hub_id": hub_id if weights == "hub" else None,
        "revision": _revision(given, base, hub_id, on_hub) if weights == "hub" else None,
        "path": path if weights == "path" else None,
        "dtype": _dtype(given, base, hf_config, told),
        "architecture": architecture.to_dict(),
        **_package(given, base, weights),
        **_trust(given, weights),
    }


def _trust(given: Fields, weights: str) -> dict[str, bool]:
    if not given.flag("trust_remote_code", default=False):
        return {}
    if weights in MADE_HERE:
        raise UserError(f"{given.where}: trust_remote_code is true, but {weights} weights come without code; remove it")
    return {"trust_remote_code": True}


def _package(given: Fields, base: RegistryEntry | None, weights: str) -> dict[str, Any]:
    """Return what the record keeps of the package that carries the weights."""
    if weights != "package":
        return {}
    if base is None or given.given("architecture") or given.given("quantization"):
        raise UserError(f"{given.where}: weights is package, so base alone must name the model")
    return {"package": package_of(base.name).record()}


def _base(name: str, given: Fields, registry: Mapping[str, RegistryEntry]) -> RegistryEntry | None:
    base = given.optional_text("base") or (name if name in registry else None)
    if base is not None and base not in registry:
        raise UserError(f"{given.where}: base is the unknown model {base!r} ({suggest(base, registry)})")
    return registry[base] if base is not None else None


def _shape_given(given: Fields, base: RegistryEntry | None) -> bool:
    return base is not None or given.given("architecture")


def _check_weights(given: Fields, weights: str, path: str | None, hub_id: str | None) -> None:
    if weights == "path" and path is None:
        raise UserError(f"{given.where}: weights is path, so path must name the model's folder")
    if weights != "path" and path is not None:
        raise UserError(f"{given.where}: path is given, but weights is {weights}; drop one of the two")
    if weights == "hub" and hub_id is None:
        raise UserError(f"{given.where}: weights is hub, so hub_id must name the repository")
    if weights != "hub" and given.given("hub_id"):
        raise UserError(f"{given.where}: hub_id is given, but weights is {weights}; drop one of the two")
    if weights != "hub" and given.given("revision"):
        raise UserError(f"{given.where}: revision is given, but weights is {weights}; drop one of the two")


def _own_config(path: str, where: str, name: str = "config.json") -> dict[str, Any]:
    file = Path(path) / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{where}: cannot read {file} ({error.strerror}); give a folder with a config.json, "
            "or describe the model by base or architecture"
        ) from None
    except (ValueError, RecursionError):
        raise UserError(f"{where}: {file} is no valid JSON") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: {file} must hold a JSON object")
    return content


def _architecture(given: Fields, base: RegistryEntry | None, hf_config: Mapping[str, Any] | None) -> ModelArchitecture:
    if hf_config is not None:
        folder = str(given.values["path"])
        return from_hf_config(hf_config, f"{given.where}, {folder}/config.json", _beside(folder, given.where))
    own = given.values.get("architecture")
    where = f"{given.where}.architecture"
    if base is None:
        if own is None:
            raise UserError(f"{given.where}: needs base (a known model's name) or architecture")
        return ModelArchitecture.from_dict(own, where)
    if own is None:
        return base.architecture
    if not isinstance(own, Mapping):
        raise UserError(f"{where}: got {own!r}, but must be a mapping of fields")
    return ModelArchitecture.from_dict(_overridden(base.architecture, own), where)


def _beside(path: str, where: str) -> dict[str, Any] | None:
    """Return what a file beside config.json says of the weights' format, None where there is none."""
    for name in BESIDE:
        if (Path(path) / name).exists():
            return _own_config(path, where, name)
    return None


def _on_hub(given: Fields, base: RegistryEntry | None, hub_id: str | None, described: bool) -> HubModel | None:
    """Return what the hub says of a model, None where the config and the registry say all that is needed."""
    pinned = given.given("revision") or (base is not None and base.revision is not None and base.hub_id == hub_id)
    if hub_id is None or (described and pinned):
        return None
    return hub_model(hub_id, given.optional_text("revision"), given.where)


def _quantized(
    given: Fields, architecture: ModelArchitecture, own: Mapping[str, Any] | HubModel | None
) -> ModelArchitecture:
    """Return the architecture with the format that the entry asks for."""
    asked = given.values.get("quantization")
    if asked is None:
        return architecture
    if own is not None:
        raise UserError(f"{given.where}: quantization is given, but the model's own files name the format; drop it")
    if asked == "none":
        return dataclasses.replace(architecture, quantization=None)
    content = quantization_config(asked, f"{given.where}.quantization")
    return dataclasses.replace(architecture, quantization=content)


def _overridden(architecture: ModelArchitecture, own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `own` over the shape; widths that were derived follow the new ones unless they are given too."""
    values = architecture.to_dict()
    if architecture.config is not None and own.get("family", architecture.family) == architecture.family:
        return _overridden_config(architecture.config, own) | {"quantization": architecture.quantization}
    if architecture.heads == architecture.kv_heads and "heads" in own:
        values["kv_heads"] = None
    if architecture.heads * architecture.head_dim == architecture.hidden_size:
        values["head_dim"] = None
    if architecture.word_embed_proj_dim == architecture.hidden_size:
        values["word_embed_proj_dim"] = None
    if own.get("family", architecture.family) != architecture.family:
        values = {}
    return values | dict(own)


def _overridden_config(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `own` over a shape that its config tells: keys of `config`, or `layers` for a smaller copy."""
    given = own.get("config", {})
    changed = dict(given) if isinstance(given, Mapping) else {}
    inner = next((name for name in NESTED if isinstance(config.get(name), Mapping)), None)
    part = dict(config[inner]) if inner else dict(config)
    if "layers" in own:
        layers = own["layers"]
        if isinstance(layers, int):  # lists with an entry a layer follow
            per_layer = {name: value for name, value in part.items() if isinstance(value, list) and len(value) > layers}
            part |= {
                name: value[:layers]
                for name, value in per_layer.items()
                if name.endswith(("_types", "_type", "_pattern"))
            }
        changed[next((name for name in ALIASES["layers"] if name in part), ALIASES["layers"][0])] = own["layers"]
    part |= changed
    rest = {name: value for name, value in own.items() if name not in ("config", "layers")}
    return {"family": DECODER, "config": {**config, inner: part} if inner else part, **rest}


def _revision(given: Fields, base: RegistryEntry | None, hub_id: str | None, on_hub: HubModel | None) -> str:
    if on_hub is not None:
        return on_hub.commit
    own = given.optional_text("revision")
    if own is not None:
        return own
    if base is not None and base.revision is not None and base.hub_id == hub_id:
        return base.revision
    raise UserError(f"{given.where}: revision is missing; give the commit of {hub_id} so that the run can be repeated")


def _dtype(
    given: Fields, base: RegistryEntry | None, hf_config: Mapping[str, Any] | None, told: HubModel | None
) -> str:
    if given.given("dtype"):
        return given.text("dtype", choices=WEIGHT_DTYPES)
    if base is not None:
        return base.dtype
    if told is not None:
        return told.dtype
    if hf_config is not None:
        return hf_config_dtype(hf_config, f"{given.where}, {given.values['path']}/config.json")
    raise UserError(f"{given.where}: dtype is missing; give one of {', '.join(WEIGHT_DTYPES)}")
