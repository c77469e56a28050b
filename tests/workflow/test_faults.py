"""What a killed driver, a dying server or a hostile machine leaves behind: finished points, and no process."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from memgap.commands.unlock import remove_stale_lock
from tests.support.processes import arguments
from tests.support.studies import Study, kill
from tests.support.waiting import LAST_RESORT_S, until

pytestmark = pytest.mark.workflow

TABLE = "results/tables/small.csv"
"""What most of these tests ask for: measurements and their table, without figures and advice."""


def slow(study: Study) -> None:
    """Make the last point take long enough to be interrupted; nobody looks at figures."""
    study.config["figures"] = {}
    study.fixed["server"] = {"step-base-ms": 20.0}
    study.fixed["batch_cap"] = [4, 2, 1]


def test_kill_9_of_the_driver_repeats_the_unfinished_point_only(study: Study) -> None:
    slow(study)
    driver = study.start(TABLE)
    until(lambda: len(study.points()) >= 1)
    kill(driver, signal.SIGKILL)
    until(lambda: study.processes() == [])
    before = study.measured_at()
    assert 1 <= len(before) < 3
    assert remove_stale_lock(study.folder)
    study.run(TABLE)
    after = study.measured_at()
    assert len(after) == 3
    assert {key for key in before if after[key] != before[key]} == set()
    assert study.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_group_leaves_no_server(study: Study, number: int) -> None:
    import os

    slow(study)
    driver = study.start(TABLE)
    until(lambda: len(study.points()) >= 1)
    os.killpg(driver.pid, number)
    assert driver.wait(LAST_RESORT_S) != 0
    until(lambda: study.processes() == [])
    finished = study.measured_at()
    study.run(TABLE)
    assert {key for key in finished if study.measured_at()[key] != finished[key]} == set()


def test_a_signal_to_the_driver_alone_lets_the_session_end(study: Study) -> None:
    slow(study)
    driver = study.start(TABLE)
    until(lambda: len(study.points()) >= 1)
    kill(driver, signal.SIGTERM)
    assert driver.returncode != 0
    until(lambda: study.processes() == [])
    finished = study.measured_at()
    assert len(finished) == 3
    study.run(TABLE)
    assert study.measured_at() == finished


def test_a_second_driver_in_the_same_folder_ends_at_once(study: Study) -> None:
    slow(study)
    driver = study.start(TABLE)
    until(lambda: len(study.points()) >= 1)
    (session,) = [one for one in study.processes() if any("run_session.py" in part for part in arguments(one)[:2])]
    session.suspend()  # as long as the second driver takes to find the lock
    assert not remove_stale_lock(study.folder)
    assert "Directory cannot be locked" in study.run(TABLE, expect=1)
    session.resume()
    assert driver.wait(LAST_RESORT_S) == 0
    assert len(study.points()) == 3
    assert study.processes() == []


def test_two_folders_that_share_their_results_measure_each_point_once(study: Study) -> None:
    slow(study)
    other = Study(study.folder / "other")
    other.config = study.config
    for name in ("results", "other"):
        (study.folder / name).mkdir()
    (other.folder / "results").symlink_to(study.folder / "results")
    drivers = [one.start(TABLE) for one in (study, other)]
    assert [one.wait(LAST_RESORT_S) for one in drivers] == [0, 0], (other.folder / "driver.log").read_text()
    logs = [next(one.folder.glob("logs/sessions/*.log")).read_text() for one in (study, other)]
    assert "".join(logs).count(" tok/s, ") == 3
    assert any("all 3 points are in the store already" in log for log in logs)
    assert [point["status"] for point in study.points().values()] == ["ok"] * 3
    assert study.processes() == []


def test_a_damaged_point_behind_finished_tables_says_how_to_measure_it_again(measured: Study) -> None:
    study, table = measured, TABLE
    key = study.points()[2]["key"]
    point = study.folder / "results/points" / key / "point.json"
    point.write_bytes(point.read_bytes()[:200])
    before = study.measured_at()
    (study.folder / table).unlink()
    study.run(table)
    said = f"this point's file in the store is damaged; with `remeasure: [{key}]` in the configuration the next run"
    assert said in (study.folder / table).read_text()
    study.config["remeasure"] = [key]
    study.run(table)
    after = study.measured_at()
    assert [one for one in before if after[one] != before[one]] == [key]
    assert "damaged" not in (study.folder / table).read_text()


@pytest.fixture(scope="module")
def out_of_memory_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study whose largest cap does not fit; nobody changes anything in it."""
    base = Study(tmp_path_factory.mktemp("oom"))
    base.fixed["server"]["fault"] = "oom-at-running:3"
    base.run()
    return base.folder


@pytest.fixture
def out_of_memory(study: Study, out_of_memory_once: Path) -> Study:
    """Return a copy of that study."""
    shutil.copytree(out_of_memory_once, study.folder, dirs_exist_ok=True, symlinks=True)
    study.fixed["server"]["fault"] = "oom-at-running:3"
    return study


def test_a_server_that_runs_out_of_memory_is_a_result_and_is_drawn(out_of_memory: Study) -> None:
    study = out_of_memory
    points = study.points()
    assert {cap: point["status"] for cap, point in points.items()} == {1: "ok", 2: "ok", 4: "oom"}
    assert "out of memory" in points[4]["error"]["log_tail"]
    table = (study.folder / TABLE).read_text()
    assert ",oom," in table
    assert (study.folder / "figures/fig02.pdf").exists()
    assert "Nothing to be done" in study.run()


def test_failed_points_are_measured_again_when_asked(out_of_memory: Study) -> None:
    study = out_of_memory
    before = study.measured_at()
    failed = study.points()[4]["key"]
    study.config["remeasure_failed"] = True
    study.run(TABLE)
    after = study.measured_at()
    assert [key for key in before if after[key] != before[key]] == [failed]


def test_a_sweep_whose_servers_never_start_still_ends_with_figures(study: Study) -> None:
    study.fixed["server"]["fault"] = "oom-start"
    study.config["figures"] = {"fig10": {"sweep": "small"}}
    study.run()
    assert {point["status"] for point in study.points().values()} <= {"oom", "crash"}
    assert (study.folder / "figures/fig10.png").exists()
    assert (study.folder / "results/advisor/tiny-opt.yaml").exists()


def test_an_occupied_port_is_one_sentence(study: Study) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        study.config["engines"]["mock"]["port"] = port
        printed = study.run(expect=1)
    assert f"memgap: engines.mock.port: port {port} on 127.0.0.1 is in use by another program" in printed
    assert "Traceback" not in printed


def test_a_missing_dataset_file_is_one_sentence(study: Study) -> None:
    study.config["datasets"]["short"] = {
        "kind": "sharegpt",
        "path": "absent.json",
        "tokenizer": "absent",
        "requests": 8,
    }
    printed = study.run(expect=1)
    assert "absent" in printed
    assert "memgap: " in printed
    assert "Traceback" not in printed


def test_results_that_cannot_be_written_are_one_sentence(study: Study) -> None:
    (study.folder / "results").mkdir()
    (study.folder / "results" / "points").write_text("a file where the store has to be\n")
    printed = study.run(expect=1)
    assert "memgap: cannot write below results/points" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="read-only mounts are tried on Linux only")
def test_a_read_only_results_folder_is_one_sentence(study: Study) -> None:
    results = study.folder / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(results)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a read-only file system here (needs root)")
    try:
        printed = study.run(expect=1)
    finally:
        subprocess.run(["umount", str(results)], check=True)
    assert "Read-only file system" in printed
    assert "Traceback" not in printed
