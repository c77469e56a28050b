"""Everything a configuration asks for: its points, the sessions that measure them, the files they need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memgap.config.load import Config
from memgap.declared.figures import figures
from memgap.engine.adapters import adapter_for, require
from memgap.errors import UserError
from memgap.kinds.kind import Kind
from memgap.kinds.registry import KINDS
from memgap.models.staging import hub_model_name, model_folder_name
from memgap.points.plan import SessionOptions, SessionPlan
from memgap.points.point import Point, Record
from memgap.points.resolve import Resolver


@dataclass
class Group:
    """One entry of a section of the configuration, such as a sweep: `members` are (experiment, point key)."""

    name: str
    kind: Kind
    members: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Study:
    """The expanded configuration.

    `points` by key; `groups` by name; `sessions`: session name -> point keys in the order of measurement; `plans`:
    name -> (kind, plan) of what finds its points only while it runs; `model_folders`, `hub_models` (those that jobs
    cannot fetch themselves) and `datasets`: folder or file stem -> full specification.
    """

    config: Config
    points: dict[str, Point] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    sessions: dict[str, list[str]] = field(default_factory=dict)
    plans: dict[str, tuple[Kind, Record]] = field(default_factory=dict)
    model_folders: dict[str, Record] = field(default_factory=dict)
    hub_models: dict[str, Record] = field(default_factory=dict)
    datasets: dict[str, Record] = field(default_factory=dict)

    def of_section(self, section: str) -> dict[str, list[tuple[str, str]]]:
        """Return the members of each group of a section of the configuration, by its name."""
        return {name: group.members for name, group in self.groups.items() if group.kind.section == section}

    @property
    def sweeps(self) -> dict[str, list[tuple[str, str]]]:
        """The sweeps by name."""
        return self.of_section("sweeps")

    @property
    def offline(self) -> dict[str, list[tuple[str, str]]]:
        """The offline studies by name."""
        return self.of_section("offline")

    @property
    def loadtests(self) -> dict[str, list[tuple[str, str]]]:
        """The load tests by name."""
        return self.of_section("loadtests")

    @property
    def tunings(self) -> dict[str, Record]:
        """The plans of tunings by name."""
        return {name: plan for name, (kind, plan) in self.plans.items() if kind.section == "tuning"}

    @property
    def labs(self) -> dict[str, Record]:
        """The plans of labs by name."""
        return {name: plan for name, (kind, plan) in self.plans.items() if kind.section == "labs"}

    def sessions_of(self, group: str) -> list[str]:
        """Return the names of the sessions that measure a group, in order, each once."""
        return list(dict.fromkeys(self.points[key].session for _, key in self.groups[group].members))

    def models_of(self, group: str) -> list[str]:
        """Return the names of the models of a group, in order, each once."""
        records = (self.points[key].record for _, key in self.groups[group].members)
        return list(dict.fromkeys(record["model"]["name"] for record in records))

    def advised_sweep(self, model: str) -> str | None:
        """Return the sweep that a model's advice is from: the first one of a figure that measures it, or None."""
        return next((sweep for sweep in self.figure_sweeps() if model in self.models_of(sweep)), None)

    def figure_sweeps(self) -> list[str]:
        """Return the sweeps that figures are of and whose models get advice, each once.

        Those beside an offline study, comparisons of engines, and sweeps of an engine without advice get none.
        """
        figures = self.config["figures"].values()
        drawn = (settings["sweep"] for settings in figures if "sweep" in settings and "study" not in settings)
        return [sweep for sweep in dict.fromkeys(drawn) if self._is_advised(sweep)]

    def _is_advised(self, sweep: str) -> bool:
        engines = {self.points[key].record["engine"]["adapter"] for _, key in self.groups[sweep].members}
        return all(adapter_for(one).capabilities.is_advised for one in engines)

    def verification_plan(self, model: str) -> Record:
        """Return what the verification of a model's advice reads: its points of the sweep and how sessions run."""
        sweep = self.advised_sweep(model)
        keys = [key for _, key in self.groups[sweep].members] if sweep else []
        mine = [self.points[key] for key in keys if self.points[key].record["model"]["name"] == model]
        sessions = {name: self.session_plan(name) for name in dict.fromkeys(point.session for point in mine)}
        return {
            "model": model,
            "points": [{"key": one.key, "session": one.session, "record": one.record} for one in mine],
            "sessions": {
                name: {
                    "model_folder": plan["model_folder"],
                    "options": {**plan["options"], "remeasure": []},
                }
                for name, plan in sessions.items()
            },
        }

    def session_plan(self, session: str) -> SessionPlan:
        """Return what the session job reads: its points and what is not part of a point's identity.

        Repeats come after all points that are no repeats, so that a drift shows in their interval.
        """
        keys = sorted(self.sessions[session], key=lambda key: self.points[key].record["repeat"])
        record = self.points[keys[0]].record
        engine = self.config["engines"][record["engine"]["name"]]
        options: SessionOptions = {
            "python": engine["python"],
            "port": engine["port"],
            "startup_timeout_s": engine["startup_timeout_s"],
            "interval_s": self.config["collectors"]["interval_s"],
            "remeasure": sorted(set(self.config["remeasure"]) & set(keys)),
            "remeasure_failed": self.config["remeasure_failed"],
            "recorded": self.config["recorded"],
        }
        if hub_model_name(record["model"]) in self.hub_models:
            options["offline_nodes"] = True
        return {
            "session": session,
            "points": [{"key": key, "record": self.points[key].record} for key in keys],
            "model_folder": model_folder_name(record["model"]),
            "stop": self._stop_rules(set(keys)),
            "options": options,
        }

    def _stop_rules(self, keys: set[str]) -> list[Mapping[str, Any]]:
        """Return the rules that may spare points of a session: one for each sweep with points in it."""
        rules: list[Mapping[str, Any]] = []
        if not any(_spares(sweep["stop"]) for sweep in self.config["sweeps"].values()):
            return rules
        for sweep, members in self.sweeps.items():
            stop = self.config["sweeps"][sweep]["stop"]
            mine = [key for _, key in members if key in keys]
            if mine:
                searches = stop.get("search", "none") != "none"
                settings = {name: self.config["advisor"][name] for name in ("latency", "slo", "epsilon")}
                rule = {"points": mine, "stop": stop, "advisor": settings if searches else None}
                rules.append({**rule, "averaging": self.config["averaging"]})
        return rules if any(_spares(rule["stop"]) for rule in rules) else []

    def group_plan(self, name: str) -> Record:
        """Return what the tables of a group read: its points with experiment and session."""
        points = ((experiment, self.points[key]) for experiment, key in self.groups[name].members)
        return {
            "sweep": name,
            "averaging": self.config["averaging"],
            "points": [
                {"key": point.key, "session": point.session, "experiment": experiment, "record": point.record}
                for experiment, point in points
            ],
        }


def expand_study(config: Config) -> Study:
    """Expand a checked configuration.

    Raises UserError for unknown engines, models or datasets (naming the known ones), contradicting arguments, missing
    ones, and two groups of the same name.
    """
    study, resolver = Study(config=config), Resolver(config)
    for kind in (one for one in KINDS if one.section):
        for name in config[kind.section]:
            if name in study.groups:
                other = study.groups[name].kind.section
                raise UserError(f"config: {kind.section}.{name} and {other}.{name} have the same name; rename one.")
            study.groups[name] = Group(name, kind)
        for name, experiment, point in kind.expand(resolver):
            _add(study, point, study.groups[name].members, experiment)
        study.plans |= {name: (kind, plan) for name, plan in kind.plans(resolver).items()}
    _check_advised(study)
    return study


def _check_advised(study: Study) -> None:
    """Raise UserError where a figure of the advice is asked of an engine that gets none."""
    for figure in study.config["figures"]:
        if "sweep.advice" not in figures()[figure].reads:
            continue
        sweep = study.config["figures"][figure]["sweep"]
        for _, key in study.groups[sweep].members:
            engine = study.points[key].record["engine"]
            require(engine, "is_advised", f"the advice in {figure}", f"config: figures.{figure}.sweep")


def _spares(stop: Mapping[str, Any]) -> bool:
    return "repeats" in stop or bool(stop.get("after_preemption")) or stop.get("search", "none") != "none"


def _add(study: Study, point: Point, members: list[tuple[str, str]], experiment: str) -> None:
    if point.key not in study.points:
        study.points[point.key] = point
        study.sessions.setdefault(point.session, []).append(point.key)
        folder = model_folder_name(point.record["model"])
        if folder is not None:
            study.model_folders[folder] = point.record["model"]
        staged = hub_model_name(point.record["model"])
        if staged is not None and study.config["resources"]["offline_nodes"]:
            study.hub_models[staged] = point.record["model"]
        if "dataset" in point.record:
            study.datasets[point.record["dataset"]["key"]] = point.record["dataset"]
    members.append((experiment, point.key))
