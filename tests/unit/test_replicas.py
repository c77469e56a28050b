"""Several servers share one load: with even requests, divided memory, and one fate."""

import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from memgap.engine.failure import ServerFailureError
from memgap.host.mps import CONTROL, Mps
from memgap.host.protocol import HostPlan
from memgap.host.replicas import Replicas
from tests.support.records import small_study
from tests.support.sessions import run_session
from tests.support.waiting import until

FAKE_MPS = """#!{python}
import os, signal, sys, time
from pathlib import Path
pipe = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
if sys.argv[1:] == ["-f"]:
    {daemon}
command = sys.stdin.read().strip()
if not (pipe / "pid").exists():
    sys.exit("Cannot find MPS control daemon process")
if command == "quit":
    os.kill(int((pipe / "pid").read_text()), signal.SIGTERM)
"""
RUNS = '(pipe / "pid").write_text(str(os.getpid())); time.sleep(600); sys.exit()'
FAILS = 'sys.exit("no GPU here")'


def fake_mps(folder: Path, monkeypatch: pytest.MonkeyPatch, daemon: str) -> None:
    """Put a stand-in for NVIDIA's program first on the PATH."""
    program = folder / CONTROL
    program.write_text(FAKE_MPS.format(python=sys.executable, daemon=daemon))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def study_of(replicas: int, mps: bool = False, load: Any = None, **server: Any) -> Any:
    """Return a study of one point with these replicas."""
    changes = {} if load is None else {"load": load}
    return small_study(server={"step-base-ms": 2.0, **server}, replicas=replicas, mps=mps, batch_cap=[4], **changes)


def group(tmp_path: Path, replicas: int, mps: bool = False, **server: Any) -> Replicas:
    """Return the servers of such a point."""
    record = next(iter(study_of(replicas, mps, **server).points.values())).record
    return Replicas(HostPlan(record, "unused", sys.executable, tmp_path, 20))


def test_memory_is_divided_and_the_load_multiplied() -> None:
    flags = {"gpu-memory-utilization": 0.9, "kv-cache-memory-bytes": 4001}
    records = [
        next(iter(small_study(server=flags, replicas=number, batch_cap=[4]).points.values())).record
        for number in (1, 4)
    ]
    assert records[0]["server"]["args"]["gpu-memory-utilization"] == 0.9
    assert records[1]["server"]["args"]["gpu-memory-utilization"] == 0.225
    assert records[1]["server"]["args"]["kv-cache-memory-bytes"] == 1000
    assert [one["load"]["concurrency"] for one in records] == [4, 16]
    assert "balance" not in records[0]["load"]
    assert records[1]["load"]["balance"] == "least-outstanding"


def test_a_point_of_two_replicas_counts_the_tokens_of_both(tmp_path: Path) -> None:
    study = study_of(2, **{"step-base-ms": 30.0}, load={"requests": 24, "warmup_requests": 4})
    point = run_session(study, tmp_path)
    assert point["status"] == "ok"
    summary = point["summary"]
    assert summary["server_output_tokens"] == summary["output_tokens"]
    assert summary["max_running_reqs"] > 4, "more than one replica's cap"
    assert summary["max_running_reqs"] <= 8
    assert len(point["provenance"]["commands"]) == 2
    assert len(point["engine"]["kv_pool_tokens_by_replica"]) == 2
    assert point["verdict"]["verdict"] != "invalid", point["verdict"]


def test_a_replica_that_dies_takes_the_point_and_its_siblings_with_it(tmp_path: Path) -> None:
    with group(tmp_path, 3) as servers:
        servers.start()
        assert servers.alive
        pids = servers.pids
        os.kill(pids[1], signal.SIGKILL)
        until(lambda: not servers.alive)
        assert "replica 2 of 3" in str(servers.death())
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_replica_that_cannot_start_stops_the_others(tmp_path: Path) -> None:
    with (
        group(tmp_path, 3, fault="oom-start") as servers,
        pytest.raises(ServerFailureError, match="3 replicas") as error,
    ):
        servers.start()
    assert error.value.kind == "oom"
    assert not psutil.Process().children(recursive=True)


def test_mps_runs_with_the_servers_and_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mps(tmp_path, monkeypatch, RUNS)
    with group(tmp_path, 2, mps=True) as servers:
        servers.start()
        assert servers.alive
        (daemon,) = servers.helper_pids
        environment = psutil.Process(servers.pids[0]).environ()
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        assert folder.is_dir()
    assert not psutil.pid_exists(daemon)
    assert not folder.parent.exists()


def test_mps_that_dies_is_the_points_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mps(tmp_path, monkeypatch, RUNS)
    with group(tmp_path, 1, mps=True) as servers:
        servers.start()
        (daemon,) = servers.helper_pids
        os.kill(daemon, signal.SIGKILL)
        until(lambda: not servers.alive)
        assert servers.death().kind == "mps_failed"


@pytest.mark.parametrize(
    ("daemon", "text"), [(FAILS, "ended right after its start"), (None, "is not on the PATH")], ids=["fails", "absent"]
)
def test_mps_that_does_not_start_is_a_recorded_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: str | None, text: str
) -> None:
    if daemon is not None:
        fake_mps(tmp_path, monkeypatch, daemon)
    point = run_session(study_of(2, mps=True), tmp_path)
    assert point["status"] == "mps_failed"
    assert text in point["error"]["message"]
    assert not psutil.Process().children(recursive=True)


def test_mps_removes_its_folder_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mps(tmp_path, monkeypatch, FAILS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServerFailureError):
        Mps().start()
    assert not list(tmp_path.glob("memgap-mps-*"))
