"""The fleet to plan: GPUs, what is asked of each model, and the objective."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memgap.config.load import schema
from memgap.config.reading import read_yaml
from memgap.errors import UserError
from memgap.models.fields import Fields

OBJECTIVES = ("throughput", "gpus")


@dataclass(frozen=True)
class GpuKind:
    """`count` equal GPUs; `measured_on` is the part of `gpu_name` that their profiles bear, None where all rows do."""

    name: str
    count: int
    memory_gib: float
    memory_limit_fraction: float
    measured_on: str | None

    @property
    def limit_permille(self) -> int:
        """The thousandths of its memory that all replicas together may take."""
        return math.floor(1000 * self.memory_limit_fraction + 1e-9)


@dataclass(frozen=True)
class Demand:
    """What is asked of one model: tokens (prompt and output) a second, and a bound on a latency column of the table."""

    model: str
    demand_tok_s: float
    weight: float
    latency: str
    slo_ms: float | None
    min_replicas: int
    max_replicas: int | None


@dataclass(frozen=True)
class Fleet:
    """A checked fleet. `sharing_efficiency` is the part of its throughput that a replica keeps beside others."""

    objective: str
    gpus: tuple[GpuKind, ...]
    models: tuple[Demand, ...]
    memory_margin: float
    sharing_efficiency: float
    time_limit_s: float


def latencies() -> list[str]:
    """Return the latency columns that a bound may be about."""
    allowed: list[str] = schema()["$defs"]["advisor"]["properties"]["latency"]["enum"]
    return allowed


def read_fleet(path: Path) -> Fleet:
    """Return the fleet that a YAML file describes; raises UserError where it cannot be read or does not make sense."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read the fleet {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    return fleet_of(content, str(path))


def fleet_of(content: object, where: str) -> Fleet:
    """Return the fleet that a mapping describes; raises UserError, which begins with `where`."""
    given = Fields(
        content, where, ("objective", "gpus", "models", "memory_margin", "sharing_efficiency", "time_limit_s")
    )
    kinds = given.values.get("gpus")
    if not isinstance(kinds, list) or not kinds:
        raise given.error("gpus", "a list of at least one kind of GPU, such as {name: a, count: 2, memory_gib: 80}")
    gpus = tuple(_gpu_kind(kind, f"{where}: gpus[{number}]") for number, kind in enumerate(kinds))
    names = [kind.name for kind in gpus]
    for name in (name for name in names if names.count(name) > 1):
        raise UserError(f"{where}: gpus names {name!r} twice; give each kind a name of its own or add the counts up.")
    models = given.values.get("models")
    if not isinstance(models, Mapping) or not models:
        raise given.error("models", "a mapping of at least one model to its demand, such as {m: {demand_tok_s: 1000}}")
    return Fleet(
        objective=given.text("objective", choices=OBJECTIVES, default="throughput"),
        gpus=gpus,
        models=tuple(_demand(str(name), one, f"{where}: models.{name}") for name, one in models.items()),
        memory_margin=_at_least_zero(given, "memory_margin", 0.1),
        sharing_efficiency=_fraction(given, "sharing_efficiency", 1.0),
        time_limit_s=given.number("time_limit_s", above=0.0, default=60.0),
    )


def _gpu_kind(content: object, where: str) -> GpuKind:
    given = Fields(content, where, ("name", "count", "memory_gib", "memory_limit_fraction", "measured_on"))
    return GpuKind(
        name=given.text("name"),
        count=given.integer("count", minimum=1),
        memory_gib=given.number("memory_gib", above=0.0),
        memory_limit_fraction=_fraction(given, "memory_limit_fraction", 0.9),
        measured_on=given.optional_text("measured_on"),
    )


def _demand(model: str, content: object, where: str) -> Demand:
    given = Fields(content, where, ("demand_tok_s", "weight", "slo", "min_replicas", "max_replicas"))
    latency, slo_ms = "itl_mean_ms", None
    if given.given("slo"):
        slo = Fields(given.values["slo"], f"{where}.slo", ("latency", "ms"))
        latency = slo.text("latency", choices=latencies(), default=latency)
        slo_ms = slo.number("ms", above=0.0)
    fewest = given.integer("min_replicas", minimum=0, default=0)
    most = given.integer("max_replicas", minimum=0) if given.given("max_replicas") else None
    if most is not None and most < fewest:
        raise given.error("max_replicas", f"at least min_replicas, which is {fewest}")
    return Demand(
        model=model,
        demand_tok_s=_at_least_zero(given, "demand_tok_s"),
        weight=given.number("weight", above=0.0, default=1.0),
        latency=latency,
        slo_ms=slo_ms,
        min_replicas=fewest,
        max_replicas=most,
    )


def _at_least_zero(given: Fields, name: str, default: float | None = None) -> float:
    if default is not None and not given.given(name):
        return default
    value = given.number(name, above=-math.inf)
    if value < 0:
        raise given.error(name, "a number of at least 0")
    return value


def _fraction(given: Fields, name: str, default: float) -> float:
    value = given.number(name, above=0.0, default=default)
    if value > 1:
        raise given.error(name, "a number above 0 and at most 1")
    return value
