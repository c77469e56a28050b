"""What a session relies on holds for every host, and phases measure on whatever is one."""

import gzip
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from memgap.datasets import build_dataset, save_dataset
from memgap.engine.adapters import adapter_for
from memgap.engine.failure import ServerFailureError
from memgap.host.protocol import Check, Entry, Host, HostPlan, Server
from memgap.host.replicas import Replicas
from memgap.host.worker import Job, Worker
from memgap.kinds.online.measure import MEASURING
from memgap.mock_server.launch import MockServer
from memgap.session.measuring import Measuring, Phase, PointRun
from memgap.session.phases import ResetCaches, Restart, Window
from memgap.session.progress import Progress
from memgap.session.run import Session
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.telemetry.sampler import Sampler
from tests.support.records import small_study
from tests.support.waiting import until

WORKER = """#!{python}
import json, os, sys, time
from pathlib import Path
out, spec = Path(sys.argv[6]), json.loads(Path(sys.argv[4]).read_text())
print("the worker works", flush=True)
if spec["fails"]:
    sys.exit("the worker cannot")
(out / "engine.json").write_text(json.dumps(dict(version="1.2.3")))
for key in spec["keys"]:
    (out / "part").write_text(json.dumps(dict(status="ok", message=None)))
    (out / "part").rename(out / (key + ".json"))
time.sleep(600)
"""
MARK = {"MEMGAP_TEST_MARK": "here"}


def host_plan(folder: Path, python: str, **server: Any) -> tuple[HostPlan, Entry]:
    """Return what a host of the small study is made from, and a point of it."""
    (point, *_) = small_study(server={"step-base-ms": 1.0, **server}).points.values()
    plan = HostPlan(point.record, "unused", python, folder, 30.0, env=MARK, interval_s=0.05)
    return plan, {"key": point.key, "record": point.record}


def replicas(folder: Path, fails: bool) -> tuple[Host, Entry]:
    """Return a simulated server."""
    plan, entry = host_plan(folder, sys.executable, **({"fault": "fail-start"} if fails else {}))
    return Replicas(plan), entry


def worker(folder: Path, fails: bool) -> tuple[Host, Entry]:
    """Return a made-up worker."""
    python = folder / "python"
    python.write_text(WORKER.format(python=sys.executable))
    python.chmod(0o755)

    def spec(points: Sequence[Entry]) -> dict[str, Any]:
        return {"fails": fails, "keys": [one["key"] for one in points]}

    def facts(engine: dict[str, Any], log: str, began_s: float) -> dict[str, Any]:
        return {**engine, "log": log}

    plan, entry = host_plan(folder, str(python))
    return Worker(plan, Job("no.module", "worker", "{key}.json", 60.0, spec, facts, {})), entry


Make = Callable[[Path, bool], tuple[Host, Entry]]
both = pytest.mark.parametrize("make", [replicas, worker])


@both
def test_a_host_starts_says_what_it_is_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    host, entry = make(tmp_path, False)
    assert not host.alive and not host.has(entry["key"]) and host.log_tail() == ""
    host.stop()
    with host:
        host.start(points=[entry])
        assert host.alive and host.has(entry["key"]) and host.start_s > 0 and host.local
        (pid,) = host.pids
        environment = psutil.Process(pid).environ()
        assert {**host.environment, **MARK}.items() <= environment.items()
        until(lambda: bool(host.facts.version))  # a worker says it once it works
        assert host.told["version"] == host.facts.version
        assert host.told["start_s"] is None or host.told["start_s"] > 0
        assert host.commands and len(host.commands[0]) > 3
        assert host.metrics_urls == host.urls
        assert all({"time_s", "rss_bytes"} <= row.keys() for row in host.startup_rows)
        assert host.reset_caches() and host.settle()
    assert not host.alive and not psutil.pid_exists(pid)
    assert host.log_tail()


@both
def test_a_host_that_dies_says_so_and_starts_again(make: Make, tmp_path: Path) -> None:
    host, entry = make(tmp_path, False)
    with host:
        host.start(points=[entry])
        (first,) = host.pids
        os.kill(first, signal.SIGKILL)
        while host.alive:
            time.sleep(0.02)
        assert host.death().kind == "crash"
        assert str(host.death())
        host.start(points=[entry])
        assert host.alive and host.pids != [first]


@both
def test_a_start_that_fails_leaves_nothing(make: Make, tmp_path: Path) -> None:
    host, entry = make(tmp_path, True)
    with host, pytest.raises(ServerFailureError) as failure:
        host.start(points=[entry])
    assert failure.value.log_tail and not failure.value.hopeless
    assert not host.alive and not host.has(entry["key"])
    assert not [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


@both
def test_a_host_can_be_stopped_while_it_starts(make: Make, tmp_path: Path) -> None:
    class EnoughError(Exception):
        """What a check raises."""

    def check() -> None:
        raise EnoughError

    host, entry = make(tmp_path, False)
    with host, pytest.raises(EnoughError):
        host.start(check, [entry])
    assert not host.alive
    assert not [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def test_a_workers_outcome_is_waited_for_and_its_end_is_not(tmp_path: Path) -> None:
    host, entry = worker(tmp_path, False)
    assert isinstance(host, Worker)
    with host:
        host.start(points=[entry])
        assert host.outcome(entry["key"], lambda: None) == {"status": "ok", "message": None}
        host.stop()
        assert host.has(entry["key"]) and not host.has("another")
        assert host.outcome(entry["key"], lambda: None)["status"] == "ok"
    assert "the worker works" in host.told["log"]


def test_a_sampler_goes_on_with_another_server(tmp_path: Path) -> None:
    def running(rows: list[dict[str, float]]) -> list[bool]:
        return ["num_requests_running" in row for row in rows]

    out = tmp_path / "samples.csv"
    with MockServer() as first, MockServer() as second, Sampler([], "mock", [], [], 0.05, out) as sampler:
        for server, wanted in ((first, 2), (second, 4)):
            before = len(sampler.rows(0.0))
            sampler.rebind([server.url], [server.process.pid], [])
            while sum(running(sampler.rows(0.0)[before:])) < wanted:
                time.sleep(0.05)
            server.stop()
        while running(sampler.rows(0.0))[-1]:
            time.sleep(0.05)
    rows = sampler.rows(0.0)
    assert [one for one in rows if "rss_bytes" in one]
    times = [row["time_s"] for row in rows]
    assert times == sorted(times)


def measured(folder: Path, measuring: Measuring[Any], **changes: Any) -> tuple[dict[str, Any], Path, str]:
    """Measure the one point of a small study; returns it, its folder and what was said."""
    study = small_study(batch_cap=2, load={"requests": 12, "warmup_requests": 2}, **changes)
    for key, spec in study.datasets.items():
        save_dataset(folder / f"datasets/{key}.npz", spec, build_dataset(spec))
    (name,), said = study.sessions, io.StringIO()
    Session(study.session_plan(name), folder, Progress("test", said), StopWatch(), measuring).run()
    (key,) = study.points
    point = PointStore(folder / "points").read(key)
    assert point is not None
    return point, folder / "points" / key, said.getvalue()


def test_a_point_has_several_windows_with_a_restart_in_between(tmp_path: Path) -> None:
    phases = (ResetCaches(), Window("warm"), Restart(), Window("cold", warm_up=False), Window("again", warm_up=False))
    point, folder, said = measured(
        tmp_path, replace(MEASURING, phases=phases, result=lambda point: "done"), server={"step-base-ms": 15.0}
    )
    assert point["status"] == "ok", point["error"]
    assert said.count("starting the server") == 2
    summary, windows = point["summary"], point["windows"]
    assert {name: one["prefix_cache_emptied"] for name, one in windows.items()} == {
        "warm": True,
        "cold": True,
        "again": False,
    }
    for name in ("warm", "cold", "again"):
        assert summary[f"{name}_output_tokens"] == summary[f"{name}_server_output_tokens"] == 96
        assert summary[f"{name}_ttft_mean_ms"] > 0
        table = pd.read_csv(io.BytesIO(gzip.decompress((folder / f"{name}.telemetry.csv.gz").read_bytes())))
        assert table["num_requests_running"].max() == 2, name
        assert len(pd.read_csv(folder / f"{name}.requests.csv.gz")) == 12
    ends = [windows[name]["window"] for name in ("warm", "cold", "again")]
    assert ends[0]["end_unix_s"] < ends[1]["start_unix_s"] < ends[1]["end_unix_s"] < ends[2]["start_unix_s"]
    (restart,) = point["restarts"]
    assert restart["start_s"] > 0 and restart["stop_s"] > 0
    assert "window" not in point and "output_tokens" not in summary
    assert {one["text"].partition(": ")[0] for one in point["verdict"]["reasons"]} <= set(windows)


class Breaks(Phase[Any]):
    """A phase in which the server fails."""

    def run(self, run: PointRun[Any]) -> None:
        """Fail."""
        raise ServerFailureError("crash", "it broke between", "the end")


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    point, folder, said = measured(tmp_path, replace(MEASURING, phases=(Window("first"), Breaks(), Window("second"))))
    assert (point["status"], point["error"]["message"]) == ("crash", "it broke between")
    assert point["summary"]["first_output_tokens"] == 96
    assert set(point["windows"]) == {"first"}
    assert (folder / "first.requests.csv.gz").exists()
    assert "crash: it broke between" in said


class Elsewhere(Server):
    """A server that somebody else has started, known by its URL only and without a metrics page."""

    noun = "endpoint"
    local = False
    alive = True
    metrics_urls: list[str] = []  # noqa: RUF012

    def __init__(self, url: str) -> None:
        self.adapter = adapter_for("mock")
        self._url = url

    @property
    def urls(self) -> list[str]:
        """Return the one that is known."""
        return [self._url]

    def start(self, check: Check = lambda: None, points: Sequence[Entry] = ()) -> None:
        """Have nothing to start."""

    def stop(self) -> None:
        """Have nothing to stop."""

    def death(self) -> ServerFailureError:
        """Know nothing of a death."""
        return ServerFailureError("crash", "it no longer answers", "")

    def log_tail(self, lines: int = 40) -> str:
        """Have no log."""
        return ""


def test_of_a_server_elsewhere_nothing_is_said_that_is_not_known(tmp_path: Path) -> None:
    with MockServer("--step-base-ms", "10", "--model", "tiny-opt") as server:
        there = replace(MEASURING, host=lambda plan: Elsewhere(server.url))
        point, _, said = measured(tmp_path, there)
    assert point["status"] == "ok", point["error"]
    assert "starting" not in said
    assert set(point["hardware"].values()) == {None}
    assert point["engine"]["version"] is None and point["engine"]["kv_pool_tokens"] is None
    assert point["provenance"]["commands"] == []
    known = {name for name in point["summary"] if name.startswith(("gpu_", "cpu_", "server_", "engine_"))}
    assert known == set(), json.dumps(sorted(known))
    assert point["summary"]["output_tokens"] == 96
