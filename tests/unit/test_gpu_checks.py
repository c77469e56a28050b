"""Two sessions on one GPU, and replicas under MPS: recorded results, and nothing left running.

These run the GPU's own checks (tests/gpu) on the simulated engine, with a simulated NVML and MPS.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import LAST_RESORT_S

CHECKS = Path(__file__).resolve().parents[1] / "gpu"


def checked(script: str, scenario: str, folder: Path) -> dict[str, Any]:
    """Run one scenario of a check; returns its part of the report."""
    command = [sys.executable, str(CHECKS / script), "--engine", "mock", "--scenario", scenario]
    command += ["--results", str(folder / "results"), "--out", str(folder / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LAST_RESORT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert report["simulated"] and report["all_met"]
    (found,) = report["scenarios"]
    assert found["met"]["nothing is left"]
    return dict(found)


def test_two_sessions_on_one_gpu_each_say_that_another_process_was_there(tmp_path: Path) -> None:
    found = checked("check_two_sessions.py", "side-by-side", tmp_path)
    assert len({one["session"] for one in found["sessions"]}) == 2
    for one in found["sessions"]:
        (point,) = one["points"]
        assert (one["exit_status"], point["status"], point["verdict"]) == (0, "ok", "invalid")
        assert point["reasons"]["foreign_processes"] == "another process was on the GPU"


def test_a_second_session_without_room_is_recorded_as_out_of_memory(tmp_path: Path) -> None:
    found = checked("check_two_sessions.py", "no-room", tmp_path)
    first, second = (one["points"][0] for one in found["sessions"])
    assert (first["status"], second["status"]) == ("ok", "oom")
    assert [one["exit_status"] for one in found["sessions"]] == [0, 0]


@pytest.mark.parametrize("scenario", ["run", "killed-replica", "killed-session"])
def test_nothing_of_mps_is_left(tmp_path: Path, scenario: str) -> None:
    found = checked("check_mps.py", scenario, tmp_path)
    assert not any(found["left"].values())
    (session,) = found["sessions"]
    statuses = [point["status"] for point in session["points"]]
    assert statuses == {"run": ["ok"], "killed-replica": ["crash"], "killed-session": []}[scenario]


LEAVES_SOMETHING = """
import subprocess, sys
import checks
from pathlib import Path

def leave(bench):
    (Path(bench.environment["TMPDIR"]) / "memgap-mps-left").mkdir()
    daemon = subprocess.Popen([checks.SIMULATED / checks.CONTROL, "-f"], env={
        **bench.environment, "CUDA_MPS_PIPE_DIRECTORY": bench.environment["TMPDIR"]})
    bench.until(lambda: bool(bench.mps_processes()))
    started.append(daemon)
    return {"as expected": True}

started = []
checks.GONE_WITHIN_S = 0.2
status = checks.run(checks.parse("", ["leave"], sys.argv[1:]), {"leave": leave})
for one in started:
    one.kill()
    one.wait()
sys.exit(status)
"""


def test_what_is_left_is_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVES_SOMETHING, "--engine", "mock", "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LAST_RESORT_S, cwd=CHECKS)
    assert done.returncode == 1, done.stderr
    (found,) = json.loads(done.stdout)["scenarios"]
    assert found["met"] == {"as expected": True, "nothing is left": False}
    assert len(found["left"]["mps_processes"]) == 1
    assert [Path(one).name for one in found["left"]["temporary_folders"]] == ["memgap-mps-left"]
