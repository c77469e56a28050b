"""One small study of every kind of measurement, run as its users run it: the workflow's scripts and `memgap`.

Endpoints are not among them: they need a server that is there already, and know nothing of GPUs and versions.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from memgap.canonical import canonical_json
from memgap.figures import loadtest as loadtest_figure
from memgap.figures import restart as restart_figure
from memgap.figures.offline_notes import lost_points
from memgap.figures.points import failure_note
from memgap.kinds.locust import tables as loadtest_tables
from memgap.kinds.offline.tables import offline_tables
from memgap.kinds.restart import tables as restart_tables
from memgap.study.plan import plan_of
from memgap.study.study import Study
from memgap.tables.inputs import Inputs
from memgap.tables.points import collect
from memgap.workflow import load_study
from tests.support import fake_engine
from tests.support.figures import texts
from tests.support.labs import lab_config
from tests.support.loadtests import loadtest_config
from tests.support.offline_studies import config as offline_config
from tests.support.records import small_config
from tests.support.sessions import write_inputs
from tests.support.tunings import tuning_config

REPOSITORY = Path(__file__).resolve().parents[2]
FAKE_GPU = Path(__file__).with_name("fake_gpu")
SLOW_ENOUGH = {"step-base-ms": 20.0}
"""A point takes most of a second, so that several samples fall into its window."""

Config = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A folder, what was run in it, and the environment that its processes are told by."""

    folder: Path
    kind: "MeasuredKind"
    config: Config
    environment: Mapping[str, str]

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.folder / "results"

    @property
    def study(self) -> Study:
        """The expanded configuration."""
        return load_study(self.config)

    def run(self, expect: int = 0) -> str:
        """Measure everything of the kind; returns what was printed."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        printed = []
        for number, arguments in enumerate(self.kind.jobs(self)):
            script, plan, *rest = arguments
            path = self.folder / f"plan{number}.json"
            path.write_text(canonical_json(plan))
            command = [sys.executable, str(REPOSITORY / "workflow/scripts" / script), "--plan", str(path), *rest]
            done = subprocess.run(
                [*command, "--results", str(self.results)],
                capture_output=True,
                text=True,
                check=False,
                env=dict(self.environment),
            )
            assert done.returncode == expect, done.stderr
            assert "Traceback" not in done.stderr
            printed.append(done.stderr)
        return "".join(printed)

    def points(self) -> list[dict[str, Any]]:
        """Return the stored points that this bench is about."""
        found = [json.loads(path.read_text()) for path in sorted(self.results.glob("points/[!.]*/point.json"))]
        return [one for one in found if self.kind.is_mine(one)]


Job = tuple[Any, ...]
"""A script of the workflow, its plan, further arguments."""


def session_jobs(bench: Bench) -> list[Job]:
    """Return the sessions of the kind's group."""
    study = bench.study
    write_inputs(study, bench.results)
    return [("run_session.py", study.session_plan(name)) for name in study.sessions_of(bench.kind.group)]


def tuning_jobs(bench: Bench) -> list[Job]:
    """Return the job that runs all races."""
    return [("run_tuning.py", plan_of(bench.study, "tuning", bench.kind.group))]


def verification_jobs(bench: Bench) -> list[Job]:
    """Return the job that measures the server of a made-up advice."""
    study = bench.study
    write_inputs(study, bench.results)
    advice = {
        "model": "tiny-opt",
        "b_opt": 2,
        "server_args": {**SLOW_ENOUGH, "max-num-seqs": 2},
        "server_flags": [],
        "rule": {"latency": "itl_mean_ms", "slo_ms": None},
        "expected": {"total_throughput_tok_s": 100.0},
        "memory": {},
        "candidates": [],
    }
    path = bench.results / "advisor/tiny-opt.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(advice))
    out = [*("--out", str(bench.folder / "verified.yaml")), *("--html", str(bench.folder / "verified.html"))]
    return [("verify_advice.py", plan_of(study, "verification", "tiny-opt"), "--advice", str(path), *out)]


def table_of_sweep(study: Study, group: str, points: Path) -> pd.DataFrame:
    """Return the table of a sweep."""
    return collect(plan_of(study, "group", group), points)


def table_of_offline(study: Study, group: str, points: Path) -> pd.DataFrame:
    """Return the table of an offline study."""
    return offline_tables(plan_of(study, "group", group), points)["offline"].assign(
        batch_cap=lambda table: table["batch"]
    )


def table_of_loadtest(study: Study, group: str, points: Path) -> pd.DataFrame:
    """Return the table of a load test."""
    return loadtest_tables.points_table(plan_of(study, "group", group), points)


def note_of_loadtest(table: pd.DataFrame) -> str:
    """Return what a load test's figure says of its points."""
    timeline = pd.DataFrame(columns=list(loadtest_tables.TIMELINE_COLUMNS))
    figure, _ = loadtest_figure.draw(Inputs({"loadtest.loadtest": table, "loadtest.timeline": timeline}))
    return texts(figure)


def table_of_restarts(study: Study, group: str, points: Path) -> pd.DataFrame:
    """Return the table of restarts, a row a window."""
    return restart_tables.make(Inputs(plan=plan_of(study, "group", group), points=points))["restart"]


def note_of_restarts(table: pd.DataFrame) -> str:
    """Return what the figure of restarts says of its points."""
    phases = pd.DataFrame(columns=list(restart_tables.PHASE_COLUMNS))
    figure, _ = restart_figure.draw(Inputs({"restarts.restart": table, "restarts.startup": phases}))
    return texts(figure)


@dataclass(frozen=True)
class MeasuredKind:
    """How one kind is configured, run, and shown. `many` are changes that make at least five points of it."""

    name: str
    group: str
    engine: str
    configured: Callable[..., Config]
    many: Mapping[str, Any]
    jobs: Callable[[Bench], list[Job]] = session_jobs
    table: Callable[[Study, str, Path], pd.DataFrame] | None = table_of_sweep
    note: Callable[[pd.DataFrame], str] = failure_note
    has_stop_rules: bool = False
    in_worker: bool = False
    is_mine: Callable[[Mapping[str, Any]], bool] = lambda point: True

    def bench(self, folder: Path, neighbour: int | None = None, version: str | None = None, **changes: Any) -> Bench:
        """Return a place to run it in; `version` is declared of its engine."""
        config = self.configured(**changes)
        engine = config["engines"][self.engine]
        if self.in_worker:
            engine |= {"python": str(fake_engine.write_fake_engine(folder)), "version": fake_engine.VERSION}
        if version is not None:
            engine["version"] = version
        path = os.pathsep.join([str(FAKE_GPU), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
        told = {"MEMGAP_TEST_FOLDER": str(folder), "MEMGAP_TEST_NEIGHBOUR": "" if neighbour is None else str(neighbour)}
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        return Bench(folder, self, config, {**environment, **told, "PYTHONPATH": path})


def online(**changes: Any) -> Config:
    """Return a sweep of one cap."""
    return small_config(**{"batch_cap": 2, "server": SLOW_ENOUGH, **changes})


def verified(**changes: Any) -> Config:
    """Return a sweep whose advice is verified."""
    return {**online(**changes), "advisor": {"verify": True}, "figures": {"fig02": {"sweep": "small"}}}


def static(**changes: Any) -> Config:
    """Return static batches of one size."""
    config = small_config(**{"batch_cap": 3, "server": {}, **changes})
    config["engines"] = {"hf": {"adapter": "hf", "startup_timeout_s": 600}}
    config["sweeps"]["small"]["fixed"]["engine"] = "hf"
    return config


def offline(**changes: Any) -> Config:
    """Return an offline study of one batch."""
    config = offline_config(**{"batch": 4, **changes})
    config["engines"]["vllm"]["startup_timeout_s"] = 600
    return {name: value for name, value in config.items() if name not in ("sweeps", "datasets")} | {
        "collectors": {"interval_s": 0.05}
    }


def loadtest(**changes: Any) -> Config:
    """Return a load test of one scenario."""
    return loadtest_config(SLOW_ENOUGH, **{"compare": False, **changes})


def tuning(**changes: Any) -> Config:
    """Return a race of two configurations in two blocks."""
    return tuning_config(
        fixed={"server": SLOW_ENOUGH, **changes},
        tiers={"speed": {"experiments": {"step": {"server": {"step-base-ms": [25.0]}}}}},
        blocks={"least": 2, "most": 2},
    )


def restarted(**changes: Any) -> Config:
    """Return restarts of one server."""
    config = online(**changes)
    return {**config, "restarts": {"again": {"fixed": config.pop("sweeps")["small"]["fixed"]}}}


def is_verification(point: Mapping[str, Any]) -> bool:
    """Whether a point is that of the advised server."""
    return "max-num-seqs" in point["record"]["server"]["args"]


def lab_jobs(bench: Bench) -> list[Job]:
    """Return the job that runs a lab."""
    return [("run_lab.py", plan_of(bench.study, "lab", bench.kind.group))]


def lab(**changes: Any) -> Config:
    """Return a lab of two arms in one block."""
    config = lab_config(blocks=1, arms={"slow": {}, "slower": {"server": {"step-base-ms": 25.0}}}, **changes)
    config["labs"]["01"]["fixed"]["server"] = SLOW_ENOUGH
    return config


CAPS = {"batch_cap": [1, 2, 3, 4, 5]}
ONLINE = MeasuredKind("online", "small", "mock", online, CAPS, has_stop_rules=True)
KINDS = (
    ONLINE,
    replace(ONLINE, name="server-cap", configured=lambda **changes: online(**{"cap_side": "server", **changes})),
    replace(ONLINE, name="replicas", configured=lambda **changes: online(**{"replicas": 2, **changes})),
    MeasuredKind(
        *("offline", "phases", "vllm", offline, {"batch": [1, 2, 3, 4, 5]}),
        table=table_of_offline,
        note=lost_points,
        in_worker=True,
    ),
    MeasuredKind("static", "small", "hf", static, CAPS, in_worker=True),
    MeasuredKind(
        *("locust", "asking", "mock", loadtest, {"users": [1, 2, 3, 4, 5]}),
        table=table_of_loadtest,
        note=note_of_loadtest,
    ),
    MeasuredKind(
        *("restart", "again", "mock", restarted, CAPS),
        table=table_of_restarts,
        note=note_of_restarts,
    ),
    MeasuredKind("tuning", "toy", "mock", tuning, {}, jobs=tuning_jobs, table=None),
    MeasuredKind("lab", "01", "mock", lab, {}, jobs=lab_jobs, table=None),
    MeasuredKind(
        *("verification", "small", "mock", verified, {}), jobs=verification_jobs, table=None, is_mine=is_verification
    ),
)
