"""However a session ends, its finished points stay, no server is left, and the user reads one sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.session.lease import Leases
from memgap.session.watch import StoppedError, StopWatch
from memgap.store.points import PointStore
from memgap.study.study import expand_study
from tests.support.processes import arguments, belonging, left
from tests.support.records import small_config
from tests.support.servers import answering
from tests.support.sessions import Runner, main, one_line, runner, start
from tests.support.waiting import LAST_RESORT_S, until


def test_term_while_the_server_starts(tmp_path: Path) -> None:
    session = runner(tmp_path, server={"fault": "slow-start:60"})
    process = start(session)
    assert process.stderr is not None
    assert "3 points to measure" in process.stderr.readline()
    until(lambda: any("mock_server" in one and "supervisor" not in one for one in left(tmp_path)))
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == 1
    assert "stopped (signal SIGTERM)" in one_line(printed)
    assert session.points() == {}
    assert left(tmp_path) == []


def test_a_server_that_is_told_to_end_just_before_its_session_is_no_crash(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[4, 1], server={"step-base-ms": 100.0}, load={"requests": 8})
    process = start(session)
    until(lambda: 4 in session.points() and any("telemetry.sampler" in one for one in left(tmp_path)))
    (server,) = [one for one in belonging(tmp_path) if arguments(one)[2:3] == ["memgap.mock_server"]]
    server.terminate()
    server.wait(LAST_RESORT_S)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert "stopped (signal SIGTERM)" in one_line(printed)
    assert set(session.points()) == {4}, "the next session measures what this one could not"


def test_a_killed_session_leaves_no_server_and_no_lease(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[4, 1], server={"step-base-ms": 40.0}, load={"requests": 8})
    process = start(session)
    until(lambda: 4 in session.points())
    process.kill()
    process.communicate()
    until(lambda: left(tmp_path) == [])
    assert set(session.points()) == {4}
    with Leases(session.results / "leases") as leases, leases.hold(f"session {session.name}", 0.0):
        pass


def test_a_session_ends_with_its_driver(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=1, server={"step-base-ms": 100.0}, load={"requests": 32})
    driver = tmp_path / "snakemake"
    driver.write_text(f"import subprocess\nsubprocess.run({session.command()!r})\n")
    environment = {**os.environ, "MEMGAP_TEST_FOLDER": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(driver)], stderr=subprocess.PIPE, text=True, env=environment)
    until(lambda: any("memgap.telemetry.sampler" in one for one in left(tmp_path)))
    process.kill()
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert "stopped (its driver (Snakemake) has ended)" in one_line(printed)
    assert left(tmp_path) == []
    assert session.points() == {}


def test_two_sessions_at_once_measure_each_point_once(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[1, 2])
    both = [start(session), start(session)]
    printed = [process.communicate(timeout=LAST_RESORT_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(printed).count("tok/s") == 2
    assert any("all 2 points are in the store already" in one for one in printed)


@pytest.mark.parametrize("place", ["points", "sessions", "plans", ""])
def test_a_file_in_a_folders_place_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    session = runner(tmp_path, batch_cap=1)
    if place:
        (session.results / place).write_text("")
    else:
        session.results.rename(tmp_path / "away")
        session.results.write_text("")
    assert str(session.results / place) in one_line(main(session, capfd, 2))


def test_a_read_only_store_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = runner(tmp_path, batch_cap=1)
    folder = str(session.results)
    if os.geteuid() != 0:
        session.results.chmod(0o555)
    else:
        for command in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                subprocess.run(["umount", folder], capture_output=True, check=False)
                pytest.skip("root may write everywhere, and nothing can be mounted read-only here")
    try:
        printed = main(session, capfd, 2)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)
        else:
            session.results.chmod(0o755)
    assert "cannot write below" in one_line(printed)
    assert "make the folder writable" in printed


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    session = runner(tmp_path, batch_cap=1)
    monkeypatch.setattr(PointStore, "write", full)
    assert "No space left on device" in one_line(main(session, capfd, 2))


def test_a_missing_dataset_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = runner(tmp_path, batch_cap=1)
    for path in (session.results / "datasets").iterdir():
        path.unlink()
    assert "datasets" in one_line(main(session, capfd, 2))


def test_a_server_that_cannot_make_text_for_the_chat_endpoint_is_a_failed_point(tmp_path: Path) -> None:
    config = small_config(load={"requests": 4, "endpoint": "chat"}, batch_cap=[1, 2])
    config["models"]["tiny-opt"] = {"weights": "hub", "hub_id": "some/where", "revision": "0" * 40}
    session = Runner(tmp_path, expand_study(check_config(config)))
    session.run()
    points = session.points()
    assert set(points) == {1, 2}
    assert all("cannot turn token ids into text" in one["error"]["message"] for one in points.values())


def test_a_fixed_port_in_use_is_for_the_user_to_mend(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = runner(tmp_path, batch_cap=1)
    with answering(b"") as port:
        session.plan["options"]["port"] = port
        assert f"port {port} on 127.0.0.1 is in use" in one_line(main(session, capfd, 2))
    assert session.points() == {}


def test_an_engine_that_cannot_be_started_is_a_result_without_a_traceback(tmp_path: Path) -> None:
    config: dict[str, Any] = small_config(engine="real", server={"max-model-len": 64})
    config["engines"]["real"] = {"adapter": "vllm", "python": "/no/such/python", "version": "1"}
    session = Runner(tmp_path, expand_study(check_config(config)))
    session.run()
    points = session.points()
    assert [points[cap]["status"] for cap in (1, 2)] == ["bad_config"] * 2
    assert "/no/such/python" in points[1]["error"]["message"]


def test_a_signal_soon_after_a_servers_death_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StopWatch()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    watch.check_after_a_death()
    monkeypatch.setattr(time, "sleep", lambda _: watch.stop("signal SIGTERM"))
    with pytest.raises(StoppedError, match="SIGTERM"):
        watch.check_after_a_death()
