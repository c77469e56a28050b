"""Resolves what arguments name: engine, model, dataset and the server's limits, once for every kind of measurement."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memgap.config.load import Config, known
from memgap.datasets.spec import resolve_dataset
from memgap.engine.given import GivenFlags, without_none
from memgap.engine.identity import engine_record
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.models.registry import resolve_model
from memgap.points.expand import Arguments, expand_sweep
from memgap.points.point import Record


@dataclass(frozen=True)
class Resolved:
    """Arguments without lists, and what they name; `dataset` is empty where the kind has none.

    `where` is the place in the configuration, for sentences.
    """

    arguments: Arguments
    engine: Record
    model: Record
    where: str
    dataset: Record = field(default_factory=dict)

    @property
    def repeats(self) -> int:
        """How often each point is measured."""
        return int(self.arguments.get("repeats", 1))

    @property
    def flags(self) -> GivenFlags:
        """The server's flags by their meaning."""
        return GivenFlags(self.engine["adapter"], without_none(self.arguments.get("server", {})), self.where)


class Resolver:
    """Resolves the arguments of a checked configuration; each engine, model and dataset once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engines = {name: engine_record(name, settings) for name, settings in config["engines"].items()}
        self._models: dict[str, Record] = {}
        self._datasets: dict[str, Record] = {}

    def groups(self, section: str, required: Sequence[str]) -> Iterator[tuple[str, str, Resolved]]:
        """Yield (name, experiment, resolved arguments) of everything in a section of the configuration, in its order.

        Raises UserError for unknown names, and where an argument of `required` is missing.
        """
        for name, experiment, arguments, where in self.arguments(section, required):
            yield name, experiment, self.resolve(arguments, where)

    def arguments(self, section: str, required: Sequence[str]) -> Iterator[tuple[str, str, Arguments, str]]:
        """Yield the same with arguments as they are given, and the place in the configuration."""
        for name, settings in self.config[section].items():
            where = f"config: {section}.{name}"
            for experiment, arguments in expand_sweep(name, settings, section):
                for missing in (one for one in required if one not in arguments):
                    raise UserError(
                        f"{where}: no `{missing}` is given, neither in `fixed` nor in experiment {experiment!r}."
                    )
                yield name, experiment, arguments, where

    def resolve(self, arguments: Arguments, where: str) -> Resolved:
        """Return arguments with what they name; raises UserError for an unknown name."""
        engine, model = self.engine(arguments, where), self.model(arguments["model"])
        resolved = Resolved(arguments, engine, model, where)
        if "dataset" not in arguments:
            return resolved
        self.dataset_entry(arguments["dataset"], where)
        return Resolved(arguments, engine, model, where, self._dataset(resolved))

    def engine(self, arguments: Mapping[str, Any], where: str) -> Record:
        """Return the record of the engine that is named, or of the only one; raises UserError."""
        if "engine" not in arguments and len(self.engines) != 1:
            raise UserError(f"{where}: no `engine` is given; known are {', '.join(sorted(self.engines))}.")
        name = arguments.get("engine") or next(iter(self.engines))
        known(name, self.engines, "engine", where)
        return self.engines[name]

    def model(self, name: str) -> Record:
        """Return the record of a model of the configuration or the registry; raises UserError."""
        if name not in self._models:
            self._models[name] = resolve_model(name, self.config["models"])
        return self._models[name]

    def dataset_entry(self, name: str, where: str) -> Record:
        """Return what the configuration says of a dataset; raises UserError for an unknown one."""
        known(name, self.config["datasets"], "dataset", where)
        entry: Record = self.config["datasets"][name]
        return entry

    def _dataset(self, resolved: Resolved) -> Record:
        name, flags = resolved.arguments["dataset"], resolved.flags
        cached = f"{name} {resolved.model['name']} {flags.whole('max_model_len', 0)}"
        if cached not in self._datasets:
            self._datasets[cached] = dataset_record(name, self.config["datasets"][name], resolved.model, flags)
        return self._datasets[cached]


def dataset_record(name: str, entry: Mapping[str, Any], model: Record, flags: GivenFlags) -> Record:
    """Return the record of a dataset for a model and the bound on lengths that a server's flags set.

    `entry` is the configuration's. Raises UserError where requests cannot fit.
    """
    given = {key: value for key, value in entry.items() if key != "requests"}
    shape = model["architecture"]  # of an endpoint's model no more may be known than its vocabulary
    known_size = shape.get("vocabulary_size") or ModelArchitecture.from_dict(shape).vocabulary_size
    return resolve_dataset(
        name,
        {name: given},
        requests=entry["requests"],
        vocabulary_size=int(known_size),
        max_model_len=flags.whole("max_model_len", 0) if "max_model_len" in flags else None,
        model=model,
    )


def check_enough_prompts(record: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a point asks for more requests than its dataset holds."""
    asked, held = record["load"]["requests"], record["dataset"]["requests"]
    if asked > held:
        name = record["dataset"]["name"]
        raise UserError(f"{where}: load asks for {asked} requests, but datasets.{name}.requests is {held}; raise it.")
