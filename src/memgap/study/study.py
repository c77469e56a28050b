"""Everything a configuration asks for: its points, the sessions that measure them, the files they need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memgap.canonical import content_key
from memgap.config.load import Config, known
from memgap.datasets.spec import resolve_dataset
from memgap.engine.adapters import adapter_for, require
from memgap.engine.identity import engine_record
from memgap.errors import UserError
from memgap.figures.spec import figures
from memgap.kinds.locust.study import all_loadtest_points
from memgap.kinds.offline.study import offline_points
from memgap.models.registry import resolve_model
from memgap.models.staging import hub_model_name
from memgap.study.expand import expand_sweep
from memgap.study.point import Point, Record, make_point, server_record, whole_flag
from memgap.tuning.plan import tuning_plans

REQUIRED_ARGUMENTS = ("model", "dataset", "batch_cap")


@dataclass
class Study:
    """The expanded configuration.

    `points` by key; `sweeps`, `offline` and `loadtests`: name of one -> list of (experiment, point key); `sessions`:
    session name -> point keys in the order of measurement; `tunings`: name -> plan; `model_folders`, `hub_models`
    (those that jobs cannot fetch themselves) and `datasets`: folder or file stem -> full specification.
    """

    config: Config
    points: dict[str, Point] = field(default_factory=dict)
    sweeps: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    sessions: dict[str, list[str]] = field(default_factory=dict)
    offline: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    loadtests: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tunings: dict[str, Record] = field(default_factory=dict)
    model_folders: dict[str, Record] = field(default_factory=dict)
    hub_models: dict[str, Record] = field(default_factory=dict)
    datasets: dict[str, Record] = field(default_factory=dict)

    def sessions_of(self, sweep: str) -> list[str]:
        """Return the names of the sessions that measure a sweep, in order, each once."""
        return list(dict.fromkeys(self.points[key].session for _, key in self._members(sweep)))

    def models_of(self, sweep: str) -> list[str]:
        """Return the names of the models of a sweep, in order, each once."""
        return list(dict.fromkeys(self.points[key].record["model"]["name"] for _, key in self.sweeps[sweep]))

    def _members(self, name: str) -> list[tuple[str, str]]:
        return next(part[name] for part in (self.sweeps, self.offline, self.loadtests) if name in part)

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
        engines = {self.points[key].record["engine"]["adapter"] for _, key in self.sweeps[sweep]}
        return all(adapter_for(one).capabilities.is_advised for one in engines)

    def verification_plan(self, model: str) -> Record:
        """Return what the verification of a model's advice reads: its points of the sweep and how sessions run."""
        sweep = self.advised_sweep(model)
        keys = [key for _, key in self.sweeps[sweep]] if sweep else []
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

    def session_plan(self, session: str) -> Record:
        """Return what the session job reads: its points and what is not part of a point's identity.

        Repeats come after all points that are no repeats, so that a drift shows in their interval.
        """
        keys = sorted(self.sessions[session], key=lambda key: self.points[key].record["repeat"])
        record = self.points[keys[0]].record
        engine = self.config["engines"][record["engine"]["name"]]
        return {
            "session": session,
            "points": [{"key": key, "record": self.points[key].record} for key in keys],
            "model_folder": model_folder_name(record["model"]),
            "stop": self._stop_rules(set(keys)),
            "options": {
                "python": engine["python"],
                "port": engine["port"],
                "startup_timeout_s": engine["startup_timeout_s"],
                "interval_s": self.config["collectors"]["interval_s"],
                "remeasure": sorted(set(self.config["remeasure"]) & set(keys)),
                "remeasure_failed": self.config["remeasure_failed"],
                "recorded": self.config["recorded"],
                **({"offline_nodes": True} if hub_model_name(record["model"]) in self.hub_models else {}),
            },
        }

    def _stop_rules(self, keys: set[str]) -> list[Record]:
        """Return the rules that may spare points of a session: one for each sweep with points in it."""
        rules: list[Record] = []
        if not any(_spares(sweep["stop"]) for sweep in self.config["sweeps"].values()):
            return rules
        for sweep, members in self.sweeps.items():
            stop = self.config["sweeps"][sweep]["stop"]
            mine = [key for _, key in members if key in keys]
            if mine:
                searches = stop.get("search") == "b_opt"
                settings = {name: self.config["advisor"][name] for name in ("latency", "slo", "epsilon")}
                rules.append({"points": mine, "stop": stop, "advisor": settings if searches else None})
        return rules if any(_spares(rule["stop"]) for rule in rules) else []

    def sweep_plan(self, sweep: str) -> Record:
        """Return what the collection of a sweep, an offline study or a load test reads: its points with experiment and
        session."""
        return {
            "sweep": sweep,
            "points": [
                {
                    "key": key,
                    "session": self.points[key].session,
                    "experiment": experiment,
                    "record": self.points[key].record,
                }
                for experiment, key in self._members(sweep)
            ],
        }


def expand_study(config: Config) -> Study:
    """Expand a checked configuration.

    Raises UserError for unknown engines, models or datasets (naming the known ones), contradicting arguments, and
    missing ones.
    """
    study = Study(config=config)
    models: dict[str, Record] = {}
    datasets: dict[str, Record] = {}
    engines = {name: engine_record(name, settings) for name, settings in config["engines"].items()}
    for sweep_name, sweep in config["sweeps"].items():
        where = f"config: sweeps.{sweep_name}"
        members = study.sweeps.setdefault(sweep_name, [])
        for experiment, arguments in expand_sweep(sweep_name, sweep):
            for missing in (name for name in REQUIRED_ARGUMENTS if name not in arguments):
                raise UserError(
                    f"{where}: no `{missing}` is given, neither in `fixed` nor in experiment {experiment!r}."
                )
            if "engine" not in arguments and len(engines) != 1:
                raise UserError(f"{where}: no `engine` is given; known are {', '.join(sorted(engines))}.")
            engine_name = arguments.get("engine") or next(iter(engines))
            known(engine_name, engines, "engine", where)
            known(arguments["dataset"], config["datasets"], "dataset", where)
            model_name = arguments["model"]
            if model_name not in models:
                models[model_name] = resolve_model(model_name, config["models"])
            model = models[model_name]
            dataset = _dataset(arguments, engines[engine_name], config, model, datasets, where)
            for repeat in range(arguments.get("repeats", 1)):
                point = make_point(arguments, engines[engine_name], model, dataset, repeat, where)
                _check_enough_prompts(point, where)
                _check_stop(point, sweep["stop"], where)
                _add(study, point, members, experiment)
    _check_advised(study)
    for name, experiment, point in offline_points(config, engines, models):
        if name in study.sweeps:
            raise UserError(f"config: offline.{name} and sweeps.{name} have the same name; rename one.")
        _add(study, point, study.offline.setdefault(name, []), experiment)

    def dataset_of(arguments: Mapping[str, Any], model: Record, where: str) -> Record:
        engine = engines[arguments.get("engine") or next(iter(engines))]
        return _dataset(dict(arguments), engine, config, model, datasets, where)

    for name, experiment, point in all_loadtest_points(config, engines, models, dataset_of):
        if name in study.sweeps or name in study.offline:
            raise UserError(f"config: loadtests.{name} has the name of a sweep or offline study; rename one.")
        _add(study, point, study.loadtests.setdefault(name, []), experiment)
    study.tunings = tuning_plans(config, engines, models)
    return study


def _check_advised(study: Study) -> None:
    """Raise UserError where a figure of the advice is asked of an engine that gets none."""
    for figure in study.config["figures"]:
        if "sweep.advice" not in figures()[figure].reads:
            continue
        sweep = study.config["figures"][figure]["sweep"]
        for _, key in study.sweeps[sweep]:
            engine = study.points[key].record["engine"]
            require(engine, "is_advised", f"the advice in {figure}", f"config: figures.{figure}.sweep")


def _spares(stop: Mapping[str, Any]) -> bool:
    return "repeats" in stop or bool(stop.get("after_preemption")) or stop.get("search") == "b_opt"


def _check_stop(point: Point, stop: Mapping[str, Any], where: str) -> None:
    across_caps = [name for name in ("after_preemption", "search") if stop.get(name) not in (None, False, "none")]
    if across_caps and point.record["cap_side"] == "server":
        raise UserError(
            f"{where}: stop.{across_caps[0]} compares the caps of one server, so it needs `cap_side: client`."
        )


def model_folder_name(model: Mapping[str, Any]) -> str | None:
    """Return the name of the folder that holds a synthetic model, or None where the weights are not synthetic."""
    if model["weights"] != "synthetic":
        return None
    return f"{model['name']}-{content_key(model, 8)}"


def _dataset(
    arguments: Record, engine: Record, config: Config, model: Record, seen: dict[str, Record], where: str
) -> Record:
    name = arguments["dataset"]
    given = arguments.get("server", {})
    flag = str(adapter_for(engine["adapter"]).flags.max_model_len)
    limit = whole_flag(given, flag, 0, where) if given.get(flag) is not None else None
    entry = dict(config["datasets"][name])
    requests = entry.pop("requests")
    cached = f"{name} {model['name']} {limit}"
    if cached not in seen:
        seen[cached] = resolve_dataset(
            name,
            {name: entry},
            requests=requests,
            vocabulary_size=int(model["architecture"]["vocabulary_size"]),
            max_model_len=limit,
            model=model,
        )
    return seen[cached]


def _check_enough_prompts(point: Point, where: str) -> None:
    asked, held = point.record["load"]["requests"], point.record["dataset"]["requests"]
    if asked > held:
        name = point.record["dataset"]["name"]
        raise UserError(f"{where}: load asks for {asked} requests, but datasets.{name}.requests is {held}; raise it.")


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


def check_same_server(plan: Mapping[str, Any]) -> Record:
    """Return the one server record that all points of a session plan share.

    Raises UserError for a plan whose points need different servers.
    """
    servers = [server_record(point["record"]) for point in plan["points"]]
    if any(server != servers[0] for server in servers):
        raise UserError(f"session {plan['session']}: its points need different servers; make the plan again.")
    return servers[0]
