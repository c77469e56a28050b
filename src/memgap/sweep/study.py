"""Everything a configuration asks for: its points, the sessions that measure them, the files they need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memgap.canonical import content_key
from memgap.config.load import Config, known
from memgap.datasets.spec import resolve_dataset
from memgap.engine.identity import engine_record
from memgap.errors import UserError
from memgap.models.registry import resolve_model
from memgap.offline.study import offline_points
from memgap.sweep.expand import expand_sweep
from memgap.sweep.point import Point, Record, make_point, server_record, whole_flag
from memgap.tuning.plan import tuning_plans

REQUIRED_ARGUMENTS = ("model", "dataset", "batch_cap")


@dataclass
class Study:
    """The expanded configuration.

    `points` by key; `sweeps` and `offline`: name of a sweep or offline study -> list of (experiment, point key);
    `sessions`: session name -> point keys in the order of measurement; `tunings`: name -> plan; `model_folders` and
    `datasets`: folder or file stem -> full specification.
    """

    config: Config
    points: dict[str, Point] = field(default_factory=dict)
    sweeps: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    sessions: dict[str, list[str]] = field(default_factory=dict)
    offline: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tunings: dict[str, Record] = field(default_factory=dict)
    model_folders: dict[str, Record] = field(default_factory=dict)
    datasets: dict[str, Record] = field(default_factory=dict)

    def sessions_of(self, sweep: str) -> list[str]:
        """Return the names of the sessions that measure a sweep, in order, each once."""
        return list(dict.fromkeys(self.points[key].session for _, key in self._members(sweep)))

    def models_of(self, sweep: str) -> list[str]:
        """Return the names of the models of a sweep, in order, each once."""
        return list(dict.fromkeys(self.points[key].record["model"]["name"] for _, key in self.sweeps[sweep]))

    def _members(self, name: str) -> list[tuple[str, str]]:
        return self.sweeps[name] if name in self.sweeps else self.offline[name]

    def advised_sweep(self, model: str) -> str | None:
        """Return the sweep that a model's advice is from: the first one of a figure that measures it, or None."""
        return next((sweep for sweep in self.figure_sweeps() if model in self.models_of(sweep)), None)

    def figure_sweeps(self) -> list[str]:
        """Return the sweeps that figures are of, each once; not those beside an offline study."""
        drawn = (settings["sweep"] for settings in self.config["figures"].values() if "study" not in settings)
        return list(dict.fromkeys(drawn))

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
        """Return what the collection of a sweep or an offline study reads: its points with experiment and session."""
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
            dataset = _dataset(arguments, config, model, datasets, where)
            for repeat in range(arguments.get("repeats", 1)):
                point = make_point(arguments, engines[engine_name], model, dataset, repeat, where)
                _check_enough_prompts(point, where)
                _check_stop(point, sweep["stop"], where)
                _add(study, point, members, experiment)
    for name, experiment, point in offline_points(config, engines, models):
        if name in study.sweeps:
            raise UserError(f"config: offline.{name} and sweeps.{name} have the same name; rename one.")
        _add(study, point, study.offline.setdefault(name, []), experiment)
    study.tunings = tuning_plans(config, engines, models)
    return study


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


def _dataset(arguments: Record, config: Config, model: Record, seen: dict[str, Record], where: str) -> Record:
    name = arguments["dataset"]
    given = arguments.get("server", {})
    limit = whole_flag(given, "max-model-len", 0, where) if given.get("max-model-len") is not None else None
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
