"""Disks, clocks, GPUs and servers that fail in the middle of a session: a recorded result, or a clean stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from memgap.host.supervised import Supervised
from memgap.mock_server.launch import MockServer
from memgap.telemetry import window
from tests.support.processes import left
from tests.support.servers import STUBBORN
from tests.support.sessions import Runner, one_line, runner
from tests.support.waiting import LAST_RESORT_S, until

SIMULATED = Path(__file__).resolve().parents[1] / "gpu/simulated"


def before_others(folder: Path | str) -> str:
    """Return the path of modules with a folder before all else."""
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def start(session: Runner, **environment: str) -> subprocess.Popen[str]:
    """Start a session whose processes can be found by their environment."""
    mine = {**os.environ, "MEMGAP_TEST_FOLDER": str(session.folder), **environment}
    return subprocess.Popen(session.command(), stderr=subprocess.PIPE, text=True, env=mine)


def in_last_point(session: Runner, process: subprocess.Popen[str], points: int) -> None:
    """Wait until so many points are stored and the next one is sampled."""
    until(lambda: len(session.points()) == points or process.poll() is not None)

    def sampled() -> bool:
        return any(file.read_text().count("\n") > 2 for file in session.results.glob("sessions/.*.work/*.samples.csv"))

    until(lambda: sampled() or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def ended(process: subprocess.Popen[str], expect: int) -> str:
    """Wait for a session's end; returns what it printed, which holds no traceback."""
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == expect, printed
    assert "Traceback" not in printed
    return printed


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 4 MB."""
    folder = tmp_path / "results"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"A FULL DISK IS NOT TRIED HERE: no small file system can be mounted ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing goes in any more; returns the file."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return path
    raise AssertionError("the disk never gets full")


def test_a_disk_that_gets_full_costs_the_point_in_flight_only(tmp_path: Path, small_disk: Path) -> None:
    session = runner(tmp_path, batch_cap=[4, 1], server={"step-base-ms": 30.0}, load={"requests": 8})
    process = start(session)
    in_last_point(session, process, 1)
    before, filler = session.written(), fill(small_disk)
    assert "No space left on device; finished points are kept" in one_line(
        "\n".join(line for line in ended(process, 2).splitlines() if "the sampler" not in line)
    )
    assert set(session.points()) == {4}
    assert left(tmp_path) == []
    filler.unlink()
    session.run()
    after = session.written()
    assert set(after) == {1, 4}
    assert after[4] == before[4]


# --- clocks

JUMPING_CLOCK = """
import os, time
real = time.time
def jumped():
    try:
        with open(os.environ["MEMGAP_TEST_JUMP"]) as file:
            return real() + float(file.read() or 0)
    except OSError:
        return real()
time.time = jumped
"""


def test_a_clock_that_jumps_in_the_middle_of_a_point_changes_no_number(tmp_path: Path) -> None:
    jump = tmp_path / "jump"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(JUMPING_CLOCK)
    environment = {"PYTHONPATH": before_others(tmp_path / "site"), "MEMGAP_TEST_JUMP": str(jump)}
    session = runner(tmp_path, batch_cap=1, server={"step-base-ms": 30.0}, load={"requests": 8})
    began_s, process = time.monotonic(), start(session, **environment)
    in_last_point(session, process, 0)
    jump.write_text(str(2 * 86400))
    time.sleep(0.3)
    jump.write_text(str(-2 * 86400))
    ended(process, 0)
    took_s = time.monotonic() - began_s
    point = session.points()[1]
    summary, span = point["summary"], point["window"]
    assert point["status"] == "ok"
    assert 8 * 7 * 0.03 < summary["duration_s"] < took_s
    assert span["end_unix_s"] - span["start_unix_s"] == pytest.approx(summary["duration_s"])
    assert 0 < summary["ttft_mean_ms"] < took_s * 1e3
    assert 25 < summary["itl_mean_ms"] < took_s * 1e3
    assert summary["telemetry_samples"] >= 8
    assert summary["server_output_tokens"] == 64
    assert abs(span["start_unix_s"] - time.time()) < 3 * 86400
    assert left(tmp_path) == []


# --- the GPU


def gpu_that_goes(folder: Path) -> str:
    """Write a pynvml that works until the file `gone` is there; returns its folder."""
    (folder / "nvml").mkdir()
    (folder / "nvml/pynvml.py").write_text(
        (SIMULATED / "pynvml.py").read_text()
        + f"""
import pathlib
_refuse = __getattr__

def __getattr__(name):
    if not name.startswith("nvml"):
        raise AttributeError(name)
    def read(*arguments):
        if name == "nvmlDeviceGetPowerUsage" and not pathlib.Path({str(folder / "gone")!r}).exists():
            return 250000
        return _refuse(name)(*arguments)
    return read

_listed = nvmlDeviceGetComputeRunningProcesses

def nvmlDeviceGetComputeRunningProcesses(device):
    if pathlib.Path({str(folder / "gone")!r}).exists():
        raise NVMLError("GPU is lost")
    return _listed(device)
"""
    )
    return str(folder / "nvml")


def test_nvml_that_goes_in_the_middle_of_a_point_makes_it_suspect(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[8, 1], server={"step-base-ms": 50.0}, load={"requests": 10})
    process = start(session, PYTHONPATH=before_others(gpu_that_goes(tmp_path)))
    in_last_point(session, process, 1)
    (tmp_path / "gone").write_text("")
    ended(process, 0)
    points = session.points()
    assert [points[cap]["status"] for cap in (8, 1)] == ["ok", "ok"]
    assert points[8]["summary"]["gpu_power_mean_w"] == pytest.approx(250)
    assert points[8]["summary"]["gpu_telemetry_gap_s"] < points[1]["summary"]["gpu_telemetry_gap_s"]
    (reason,) = [one for one in points[1]["verdict"]["reasons"] if one["check"] == "telemetry_gap"]
    assert "the GPU's counters (NVML) could not be read for" in reason["text"]
    assert points[1]["verdict"]["verdict"] == "suspect"


@pytest.mark.parametrize("fault", ["none", "oom-start"])
def test_an_orphan_of_an_earlier_run_on_the_gpu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    environment = {"PYTHONPATH": before_others(SIMULATED), "MEMGAP_CHECK": str(tmp_path)}
    flags = {} if fault == "none" else {"fault": fault}
    session = runner(tmp_path, batch_cap=1, server={"step-base-ms": 5.0, **flags})
    monkeypatch.setenv("MEMGAP_CHECK", str(tmp_path))
    with MockServer() as orphan:
        pid = orphan.process.pid
        printed = ended(start(session, **environment), 0)
    assert f"already on the GPU: process {pid} (" in printed
    point = session.points()[1]
    if fault == "none":
        assert (point["status"], point["verdict"]["verdict"]) == ("ok", "invalid")
        assert [one["text"] for one in point["verdict"]["reasons"] if one["check"] == "foreign_processes"] == [
            "another process was on the GPU"
        ]
    else:
        assert point["status"] == "oom"
        assert f"; on the GPU before it: process {pid} (" in point["error"]["message"]


# --- the server and its helpers


def test_a_stalled_metrics_endpoint_makes_the_point_suspect(tmp_path: Path) -> None:
    session = runner(
        tmp_path, batch_cap=2, server={"step-base-ms": 20.0, "fault": "stalled-metrics:2"}, load={"requests": 20}
    )
    session.run()
    point = session.points()[2]
    assert point["status"] == "ok"
    assert "mean_running_reqs" not in point["summary"]
    assert point["summary"]["output_tokens"] == point["summary"]["server_output_tokens"] == 160
    assert {"telemetry_gap"} <= set(point["flags"])
    assert point["verdict"]["verdict"] == "suspect"


def test_ten_percent_of_failing_requests_are_a_failed_point_and_the_session_goes_on(tmp_path: Path) -> None:
    session = runner(
        tmp_path,
        batch_cap=[1, 2],
        server={"step-base-ms": 1.0, "fault": "http-500:10"},
        load={"requests": 20, "warmup_requests": 0},
    )
    session.run()
    points = session.points()
    for cap in (1, 2):
        assert points[cap]["status"] == "request_errors"
        assert points[cap]["summary"]["requests_failed"] == 2
        assert "2 of 20 requests failed (http_error); the first: " in points[cap]["error"]["message"]
        assert points[cap]["summary"]["requests_completed"] == 18


def started_by(session: Runner, part: str) -> psutil.Process:
    """Return the session's process with this in its command line."""

    def found() -> list[psutil.Process]:
        processes = []
        for one in psutil.process_iter():
            try:
                if one.environ().get("MEMGAP_TEST_FOLDER") == str(session.folder) and part in " ".join(
                    one.cmdline()[:4]
                ):
                    processes.append(one)
            except psutil.Error:
                continue
        return processes

    until(lambda: len(found()) == 1)
    return found()[0]


def test_a_sampler_that_is_killed_makes_the_point_suspect(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[1, 8], server={"step-base-ms": 50.0}, load={"requests": 10})
    process = start(session)
    in_last_point(session, process, 0)
    started_by(session, "memgap.telemetry.sampler").kill()
    ended(process, 0)
    points = session.points()
    assert {cap: point["status"] for cap, point in points.items()} == {1: "ok", 8: "ok"}
    assert {"telemetry_gap", "few_samples"} & set(points[1]["flags"])
    assert "telemetry_gap" not in points[8]["flags"]


def test_a_supervisor_that_is_killed_takes_the_point_along_and_leaves_no_server(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[1, 8], server={"step-base-ms": 50.0}, load={"requests": 10})
    process = start(session)
    in_last_point(session, process, 0)
    server = started_by(session, "-m memgap.mock_server")
    started_by(session, "memgap.host.supervisor").kill()
    ended(process, 0)
    assert session.points()[8]["status"] == "ok"
    assert session.points()[1]["status"] in ("ok", "crash")
    assert not server.is_running()
    assert left(tmp_path) == []


def test_a_server_that_lost_its_supervisor_and_ignores_term_is_killed(tmp_path: Path) -> None:
    supervised = Supervised([sys.executable, "-c", STUBBORN], tmp_path / "log", {})
    until(lambda: "up" in (tmp_path / "log").read_text())
    server = psutil.Process(supervised.pid)
    supervisor = server.parent()
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    supervised.stop()
    assert not server.is_running()


# --- what a silence is


def test_a_silence_of_a_source_is_the_longest_part_without_its_samples() -> None:
    rows = [{"time_s": t, "gpu_power_w": 1.0} for t in (-1.0, 0.5, 1.0)] + [{"time_s": 9.0, "rss_bytes": 1.0}]
    assert window.longest_gap_s(rows, window.GPU_GAUGES, 10.0) == 9.0
    assert window.longest_gap_s(rows, window.ENGINE_GAUGES, 10.0) is None
    assert window.longest_gap_s(rows[:1], window.GPU_GAUGES, 10.0) == 10.0
    summary = window.summarise(rows, 10.0, 1)
    assert (summary["engine_telemetry_gap_s"], summary["gpu_telemetry_gap_s"]) == (10.0, 9.0)
    assert "gpu_telemetry_gap_s" not in window.summarise(rows[3:], 10.0, 1)
