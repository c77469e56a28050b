"""Plans: the slice of the configuration that one job needs.

A job gets its plan as a file (`--plan`, to run it by hand) or by name (`--config FILE --name NAME`): then the
configuration that Snakemake ran with, which `memgap.workflow.snapshot` keeps, is expanded again in the job.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memgap.config.load import check_config, known
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.study.sizing import fit_sessions
from memgap.study.study import Study, expand_study

RESULTS = Path("results")
KINDS = (
    "session",
    "sweep",
    "model",
    "hub_model",
    "dataset",
    "advisor",
    "goodput",
    "fleet",
    "verification",
    "predictions",
    "roofline",
    "tuning",
)


def plan_of(study: Study, kind: str, name: str) -> dict[str, Any]:
    """Return the plan of that kind and name (advisor and roofline have one); raises UserError for an unknown name."""
    if kind == "advisor":
        settings: dict[str, Any] = study.config["advisor"]
        return settings
    if kind == "roofline":
        models = {point.record["model"]["name"]: point.record["model"] for point in study.points.values()}
        return {"models": models}
    names: dict[str, Iterable[str]] = {
        "session": study.sessions,
        "sweep": {**study.sweeps, **study.offline, **study.loadtests},
        "goodput": study.sweeps,
        "model": study.model_folders,
        "hub_model": study.hub_models,
        "dataset": study.datasets,
        "fleet": study.config["fleets"],
        "tuning": study.tunings,
        "predictions": study.config["predictions"],
        "verification": {model for sweep in study.sweeps for model in study.models_of(sweep)},
    }
    known(name, names[kind], kind, "plan")
    if kind == "session":
        return study.session_plan(name)
    if kind == "sweep":
        return study.sweep_plan(name)
    if kind == "goodput":
        return {**study.sweep_plan(name), "slos": study.config["slos"]}
    if kind == "tuning":
        return study.tunings[name]
    if kind == "verification":
        return study.verification_plan(name)
    if kind == "fleet":
        fleet: dict[str, Any] = study.config["fleets"][name]
        return fleet
    if kind == "predictions":
        asked: dict[str, Any] = study.config["predictions"][name]
        return {**asked, "config_models": study.config["models"]}
    files = {"model": study.model_folders, "hub_model": study.hub_models, "dataset": study.datasets}
    return files[kind][name]


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
    config = _read_json(options.config, "configuration")
    return plan_of(fit_sessions(expand_study(check_config(config)), RESULTS), kind, options.name)


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
