"""Expands the `loadtests` section of the configuration into points."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from memgap.config.load import Config, known
from memgap.errors import UserError
from memgap.kinds.locust.point import REQUIRED_ARGUMENTS, loadtest_points, scenario, variant
from memgap.models.registry import resolve_model
from memgap.study.expand import expand_sweep
from memgap.study.point import Point, Record

Datasets = Callable[[Mapping[str, Any], Record, str], Record]


def all_loadtest_points(
    config: Config, engines: Mapping[str, Record], models: dict[str, Record], dataset_of: Datasets
) -> Iterator[tuple[str, str, Point]]:
    """Yield (load test, scenario in words, point) of every load test; `models` keeps the resolved ones.

    `dataset_of` resolves the dataset of arguments and a model. Raises UserError for unknown names, missing and
    contradicting arguments.
    """
    for name, settings in config["loadtests"].items():
        where = f"config: loadtests.{name}"
        for experiment, arguments in expand_sweep(name, settings, "loadtests"):
            for missing in (one for one in REQUIRED_ARGUMENTS if one not in arguments):
                raise UserError(f"{where}: no `{missing}` is given, neither in `fixed` nor in {experiment!r}.")
            if "engine" not in arguments and len(engines) != 1:
                raise UserError(f"{where}: no `engine` is given; known are {', '.join(sorted(engines))}.")
            engine = arguments.get("engine") or next(iter(engines))
            known(engine, engines, "engine", where)
            known(arguments["dataset"], config["datasets"], "dataset", where)
            model = arguments["model"]
            if model not in models:
                models[model] = resolve_model(model, config["models"])
            dataset = dataset_of(arguments, models[model], where)
            points = list(loadtest_points(arguments, engines[engine], models[model], dataset, where))
            label = ", ".join(
                part
                for part in (
                    experiment if experiment != "default" else "",
                    scenario(points[0].record),
                    *dict.fromkeys(variant(one.record) for one in points),
                )
                if part
            )
            for point in points:
                yield name, label, point
