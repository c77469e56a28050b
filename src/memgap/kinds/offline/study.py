"""Expands the `offline` section of the configuration into points."""

from collections.abc import Iterator, Mapping

from memgap.config.load import Config, known
from memgap.engine.adapters import require
from memgap.errors import UserError
from memgap.kinds.offline.point import REQUIRED_ARGUMENTS, make_offline_point
from memgap.models.registry import resolve_model
from memgap.study.expand import expand_sweep
from memgap.study.point import Point, Record


def offline_points(
    config: Config, engines: Mapping[str, Record], models: dict[str, Record]
) -> Iterator[tuple[str, str, Point]]:
    """Yield (study, experiment, point) of every offline study; `models` keeps the resolved ones.

    Raises UserError for unknown names, missing and contradicting arguments.
    """
    for study, settings in config["offline"].items():
        where = f"config: offline.{study}"
        for experiment, arguments in expand_sweep(study, settings, "offline"):
            for missing in (name for name in REQUIRED_ARGUMENTS if name not in arguments):
                raise UserError(f"{where}: no `{missing}` is given, neither in `fixed` nor in {experiment!r}.")
            if "engine" not in arguments and len(engines) != 1:
                raise UserError(f"{where}: no `engine` is given; known are {', '.join(sorted(engines))}.")
            engine = arguments.get("engine") or next(iter(engines))
            known(engine, engines, "engine", where)
            require(engines[engine], "in_process", "an offline study", where)
            model = arguments["model"]
            if model not in models:
                models[model] = resolve_model(model, config["models"])
            for repeat in range(arguments.get("repeats", 1)):
                yield study, experiment, make_offline_point(arguments, engines[engine], models[model], repeat, where)
