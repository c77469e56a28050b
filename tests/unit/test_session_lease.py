"""A session and a point are measured by one process at a time, also across machines, and whatever their clocks say."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memgap.errors import UserError
from memgap.session import lease, run
from memgap.session.holder import Holder
from memgap.session.lease import Leases
from memgap.session.watch import StoppedError, StopWatch
from memgap.store.points import PointStore
from tests.support.sessions import Runner, main, one_line, runner, start
from tests.support.waiting import LAST_RESORT_S, until

NAME = "point abc"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything that a lease waits for short."""
    for name, seconds in {"BEAT_S": 0.05, "STILL_S": 0.4, "POLL_S": 0.02, "SETTLE_S": 0.05}.items():
        monkeypatch.setattr(lease, name, seconds)


def elsewhere(folder: Path, number: int = 1, **changes: Any) -> Callable[[], None]:
    """Put a lease of another machine there; returns what makes it beat once."""
    holder = dataclasses.replace(Holder.this_process(), **{"host": "node7", "machine": "another", "pid": 7, **changes})
    path, beats = folder / f"point-abc.{number}.lease", iter(range(1_000_000))
    folder.mkdir(parents=True, exist_ok=True)

    def beat() -> None:
        path.write_bytes(holder.to_text(next(beats)))

    beat()
    return beat


def files(folder: Path) -> list[str]:
    """Return the names of the lease files."""
    return sorted(path.name for path in folder.iterdir())


def test_a_lease_names_its_holder_and_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "45")
    with Leases(tmp_path / "deep/leases") as leases, leases.hold(NAME, 0.0):
        (path,) = (tmp_path / "deep/leases").iterdir()
        holder = Holder.from_text(path.read_bytes())
        assert holder is not None
        assert (holder.pid, holder.slurm_job, holder.runs) == (os.getpid(), "45", True)
        assert f"process {os.getpid()} on {holder.host}, Slurm job 45, since 20" in str(holder)
        assert "not-a-field" not in json.loads(path.read_bytes())
        leases.require(NAME)
    assert files(tmp_path / "deep/leases") == []


def test_a_holder_on_this_machine_that_runs_keeps_its_lease_though_it_hangs(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from memgap.session.lease import Leases\n"
        "leases = Leases(Path(sys.argv[1])); held = leases.hold('point abc', 0.0); held.__enter__()\n"
        "print(flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    with Leases(tmp_path) as leases:
        assert leases.is_busy(NAME)
        said = (
            rf"^point abc is being measured by process {holder.pid} on .*; wait for it, or stop it \(kill {holder.pid}"
        )
        with pytest.raises(UserError, match=said), leases.hold(NAME, 1.0):
            pass
        holder.kill()
        holder.wait()
        assert not leases.is_busy(NAME)
        with leases.hold(NAME, 0.0):
            assert files(tmp_path) == ["point-abc.2.lease"]
    assert files(tmp_path) == []


def test_a_process_that_has_the_dead_holders_id_is_not_taken_for_it(tmp_path: Path) -> None:
    here = Holder.this_process()
    elsewhere(tmp_path, host=here.host, machine=here.machine, pid=here.pid, started=here.started - 1)
    with Leases(tmp_path) as leases, leases.hold(NAME, 0.0):
        pass


def test_a_living_holder_elsewhere_keeps_its_lease_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = elsewhere(tmp_path, since_utc="1970-01-01T00:00:00Z")
    jumps = iter([3.0e9, 0.0, 1.0e9, -5.0e8] * 100_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    os.utime(tmp_path / "point-abc.1.lease", (0, 0))
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.05):
            beat()
            os.utime(tmp_path / "point-abc.1.lease", (next(jumps), abs(next(jumps))))

    holder = threading.Thread(target=live)
    holder.start()
    try:
        with Leases(tmp_path) as leases, pytest.raises(UserError, match="process 7 on node7"), leases.hold(NAME, 1.5):
            pass
    finally:
        ended.set()
        holder.join()


def test_a_holder_elsewhere_that_shows_no_life_is_followed_by_one(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    inside, most, order = 0, 0, threading.Lock()

    def want() -> None:
        nonlocal inside, most
        with Leases(tmp_path) as leases, leases.hold(NAME, LAST_RESORT_S):
            with order:
                inside += 1
                most = max(most, inside)
            time.sleep(0.2)
            with order:
                inside -= 1

    threads = [threading.Thread(target=want) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (most, inside) == (1, 0)
    assert files(tmp_path) == []


def test_a_watcher_that_was_suspended_does_not_take_its_own_pause_for_the_holders_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path)
    real, slept = time.monotonic, [0.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: real() + slept[0])

    def suspended_once() -> None:
        if slept[0] == 0.0:
            slept[0] = 3600.0

    watch_s = 1800.0
    with (
        Leases(tmp_path) as leases,
        pytest.raises(UserError, match="wait for it"),
        leases.hold(NAME, watch_s, suspended_once),
    ):
        pass


def test_a_holder_that_lost_its_lease_stops_and_may_not_store(tmp_path: Path) -> None:
    watch = StopWatch()
    with Leases(tmp_path, watch.stop) as leases, leases.hold(NAME, 0.0):
        elsewhere(tmp_path, number=2)
        with pytest.raises(StoppedError, match="point abc was taken over by process 7 on node7"):
            leases.require(NAME)
        until(lambda: bool(watch.reason))
    assert files(tmp_path) == ["point-abc.2.lease"]
    assert "taken over by process 7" in watch.reason


def test_a_holder_whose_folder_is_gone_stops(tmp_path: Path) -> None:
    watch = StopWatch()
    with Leases(tmp_path / "leases", watch.stop) as leases, leases.hold(NAME, 0.0):
        (tmp_path / "leases/point-abc.1.lease").unlink()
        (tmp_path / "leases").rmdir()
        until(lambda: bool(watch.reason))
    assert "the lease of point abc is gone from" in watch.reason


def test_a_holder_that_wakes_up_does_not_write_over_its_followers_lease(tmp_path: Path) -> None:
    with Leases(tmp_path) as leases, leases.hold(NAME, 0.0):
        follower = elsewhere(tmp_path)
        follower()
        text = (tmp_path / "point-abc.1.lease").read_bytes()
        time.sleep(0.3)
        assert (tmp_path / "point-abc.1.lease").read_bytes() == text
    assert (tmp_path / "point-abc.1.lease").read_bytes() == text


def test_two_that_find_no_lease_never_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the other one creates its lease, of any number, right when this one does
    real, beats = os.open, list[Callable[[], None]]()

    def at_the_same_time(path: Any, *rest: Any) -> int:
        if str(path).endswith(".lease") and not beats:
            beats.append(elsewhere(tmp_path, number=9))
        return real(path, *rest)

    monkeypatch.setattr(lease.os, "open", at_the_same_time)
    with Leases(tmp_path) as leases, pytest.raises(UserError, match="process 7 on node7"), leases.hold(NAME, 0.0):
        pass
    assert files(tmp_path) == ["point-abc.9.lease"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": []}', b"\xff\xfe"])
def test_a_damaged_lease_is_waited_for_and_then_replaced(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "point-abc.3.lease").write_bytes(text)
    with Leases(tmp_path) as leases:
        with pytest.raises(UserError, match="an unknown process"), leases.hold(NAME, 0.0):
            pass
        with leases.hold(NAME, LAST_RESORT_S):
            assert files(tmp_path) == ["point-abc.4.lease"]


def test_a_wait_for_a_lease_can_be_stopped(tmp_path: Path) -> None:
    watch, said = StopWatch(), list[str]()
    watch.stop("first")
    watch.stop("second")
    elsewhere(tmp_path)
    with (
        Leases(tmp_path, tell=said.append) as leases,
        pytest.raises(StoppedError, match="first"),
        leases.hold(NAME, 60.0, watch.check),
    ):
        pass
    assert said == [f"point abc is being measured by {_holder(tmp_path)}; waiting for at most 60 s"]


def _holder(folder: Path) -> Holder:
    holder = Holder.from_text((folder / "point-abc.1.lease").read_bytes())
    assert holder is not None
    return holder


# --- sessions


def lease_of(session: Runner, **changes: Any) -> Callable[[], None]:
    """Let another machine hold the lease of the session itself."""
    beat = elsewhere(session.results / "leases", **changes)
    path = session.results / "leases/point-abc.1.lease"
    path.rename(path.with_name(f"session-{session.name}.1.lease"))
    return beat


def test_a_leased_session_says_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "LEASE_WAIT_S", 0.0)
    session = runner(tmp_path)
    lease_of(session, slurm_job="45")
    said = one_line(main(session, capfd, 2))
    assert f"session {session.name} is being measured by process 7 on node7, Slurm job 45" in said
    assert "stop it (scancel 45), then run again" in said
    assert session.points() == {}


def test_a_point_that_another_session_measures_comes_last_and_is_measured_once(tmp_path: Path) -> None:
    first = runner(tmp_path, batch_cap=[1], server={"step-base-ms": 80.0}, load={"requests": 8})
    second = runner(tmp_path, batch_cap=[1, 2], server={"step-base-ms": 80.0}, load={"requests": 8})
    second.name = second.plan["session"] = "another-name"
    started = start(first)
    until(lambda: any("point-" in name for name in files(first.results / "leases")) if _there(first) else False)
    printed = second.run()
    assert started.wait(LAST_RESORT_S) == 0
    assert printed.index("point 1 of 2 (tiny-opt, cap 2") < printed.index("point 2 of 2 (tiny-opt, cap 1")
    assert "point 2 of 2 (tiny-opt, cap 1, 8 requests): measured by another session meanwhile" in printed
    assert set(first.points()) == {1, 2}
    assert files(first.results / "leases") == []


def _there(session: Runner) -> bool:
    return (session.results / "leases").is_dir()


def test_a_session_that_lost_its_point_stores_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = runner(tmp_path, batch_cap=1)
    real = PointStore.write

    def taken_over(store: PointStore, key: str, *rest: Any) -> None:
        folder = session.results / "leases"
        elsewhere(folder, number=8)
        (folder / "point-abc.8.lease").rename(folder / f"point-{key}.8.lease")
        real(store, key, *rest)

    monkeypatch.setattr(PointStore, "write", taken_over)
    assert "was taken over by process 7 on node7" in one_line(main(session, capfd, 1))
    assert session.points() == {}
    assert [path.name for path in (session.results / "points").iterdir()] == []
