"""Plans: the slice of the configuration that one job needs.

A job gets its plan as a file (`--plan`, to run it by hand) or by name (`--config FILE --name NAME`): then the
configuration that Snakemake ran with, which `memgap.workflow.snapshot` keeps, is expanded again in the job.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from memgap.config.load import check_config, known
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.points.point import Record
from memgap.study.sizing import fit_sessions
from memgap.study.study import Study, expand_study

RESULTS = Path("results")
Make = Callable[[Study, str], Mapping[str, Any]]


def _settings_of(part: str) -> Make:
    """Return what takes a named entry of a part of the configuration as the plan."""

    def entry(study: Study, name: str) -> Record:
        found: Record = study.config[part][name]
        return found

    return entry


def _roofline(study: Study, _: str) -> Record:
    return {"models": {point.record["model"]["name"]: point.record["model"] for point in study.points.values()}}


def _goodput(study: Study, name: str) -> Record:
    return {**study.group_plan(name), "slos": study.config["slos"]}


def _predictions(study: Study, name: str) -> Record:
    return {**study.config["predictions"][name], "config_models": study.config["models"]}


def _advisor(study: Study, _: str) -> Record:
    adapters = {name: engine["adapter"] for name, engine in study.config["engines"].items()}
    return {**study.config["advisor"], "adapters": adapters}


def _advised_models(study: Study) -> Iterable[str]:
    return {model for sweep in study.sweeps for model in study.models_of(sweep)}


PLANS: Mapping[str, tuple[Callable[[Study], Iterable[str]] | None, Make]] = {
    "session": (lambda study: study.sessions, Study.session_plan),
    "group": (lambda study: study.groups, Study.group_plan),
    "goodput": (lambda study: study.sweeps, _goodput),
    "verification": (_advised_models, Study.verification_plan),
    "tuning": (lambda study: study.tunings, lambda study, name: study.tunings[name]),
    "lab": (lambda study: study.labs, lambda study, name: study.labs[name]),
    "model": (lambda study: study.model_folders, lambda study, name: study.model_folders[name]),
    "hub_model": (lambda study: study.hub_models, lambda study, name: study.hub_models[name]),
    "dataset": (lambda study: study.datasets, lambda study, name: study.datasets[name]),
    "fleet": (lambda study: study.config["fleets"], _settings_of("fleets")),
    "predictions": (lambda study: study.config["predictions"], _predictions),
    "advisor": (None, _advisor),
    "prices": (None, lambda study, _: study.config["usd_per_gpu_hour"]),
    "explore": (None, lambda study, _: {**_advisor(study, ""), "usd_per_gpu_hour": study.config["usd_per_gpu_hour"]}),
    "roofline": (None, _roofline),
}
"""What jobs read: kind of plan -> the names there are (None where there is one plan for all), the plan of a name."""


def plan_of(study: Study, kind: str, name: str) -> Record:
    """Return the plan of that kind and name; raises UserError for an unknown name."""
    names, make = PLANS[kind]
    if names is not None:
        known(name, names(study), kind, "plan")
    return dict(make(study, name))


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a job's command line the two ways to name its plan."""
    parser.add_argument("--plan", type=Path, help="plan as a JSON file")
    parser.add_argument("--config", type=Path, help="checked configuration as JSON, with --name")
    parser.add_argument("--name", help="name of the plan in the configuration")


def requested_plan(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return the plan that the command line asks for; raises UserError where it cannot be had."""
    if options.plan is not None:
        return _read_json(options.plan, f"plan of a {kind}")
    if options.config is None or options.name is None:
        raise UserError("give either --plan FILE, or --config FILE and --name NAME.")
    return plan_of(requested_study(options), kind, options.name)


def requested_study(options: argparse.Namespace) -> Study:
    """Return the study of the configuration that the command line names; raises UserError where there is none."""
    if options.config is None:
        raise UserError("give --config FILE.")
    config = _read_json(options.config, "configuration")
    return fit_sessions(expand_study(check_config(config)), RESULTS)


def models_of(config: Path) -> dict[str, ModelArchitecture]:
    """Return the architectures by name of the models that a configuration's points use; raises UserError."""
    study = expand_study(check_config(_read_json(config, "configuration")))
    return {
        name: ModelArchitecture.from_dict(model["architecture"])
        for name, model in plan_of(study, "roofline", "settings")["models"].items()
    }


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}, the {what}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no {what}: not valid JSON.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no {what}: it holds no JSON object.")
    return content
