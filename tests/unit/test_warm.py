"""Jobs in the warm server do what they do alone: output, exit status, signals; and nothing of it is left over."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from memgap.warm.client import PACKAGE
from memgap.warm.driver import OFF, VARIABLE, claim, driver_pid, identity

JOBS = """
import argparse, os, sys, time

def main(arguments):
    parser = argparse.ArgumentParser(description="A job.")
    parser.add_argument("what")
    what = parser.parse_args(arguments).what
    print(what, os.getcwd(), os.environ.get("MINE"), sys.argv[1:], oct(os.umask(0)), sep="|")
    print("ä to stderr", file=sys.stderr)
    if what == "read":
        print(sys.stdin.read())
    if what == "fail":
        raise ValueError("it failed")
    if what == "text":
        sys.exit("a sentence")
    if what == "kill":
        os.kill(os.getpid(), 15)
    if what == "who":
        print(os.getpid(), os.getppid())
    if what == "wait":
        with open("pid.part", "w") as file:
            file.write(str(os.getpid()))
        os.rename("pid.part", "pid")
        time.sleep(600)
    return 3 if what == "three" else 0
"""
WAIT_S = 120.0

pytestmark = pytest.mark.skipif(not identity(os.getpid()), reason="warm jobs need Linux and its pidfd_open")


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that the jobs belong to; with its end the server ends."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with a small package `memgap`: the warm process and a module of jobs."""
    folder = tmp_path / "src"
    shutil.copytree(PACKAGE / "warm", folder / "memgap/warm", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "memgap/__init__.py").write_text("")
    (folder / "memgap/jobs.py").write_text(JOBS)
    (tmp_path / "job.py").write_text(
        'import sys\nfrom memgap.warm.client import start\nsys.exit(start("memgap.jobs"))\n'
    )
    return folder


def environment(package: Path, driver: subprocess.Popen[bytes], **more: str) -> dict[str, str]:
    """Return what a job of that driver finds in its environment."""
    return {**os.environ, "PYTHONPATH": str(package), VARIABLE: identity(driver.pid), "MINE": "ours", **more}


def job(package: Path, what: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a job of the small package."""
    return subprocess.Popen(
        [sys.executable, str(package.parent / "job.py"), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=package.parent,
        env=variables,
    )


def said(package: Path, what: str, variables: Mapping[str, str]) -> tuple[int, str, str]:
    """Return exit status, output and errors of a job."""
    process = job(package, what, variables)
    out, errors = process.communicate("from stdin")
    return process.returncode, out, errors


def who(package: Path, variables: Mapping[str, str]) -> tuple[int, int, int]:
    """Return the process that was started for a job, the one that ran it, and that one's parent."""
    process = job(package, "who", variables)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    ran, parent = map(int, out.splitlines()[-1].split())
    return process.pid, ran, parent


def until(true: Callable[[], bool]) -> None:
    """Wait for something that comes, however slow the machine is."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has asked about yet counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("what", ["plain", "three", "text", "kill", "read"])
def test_a_warm_job_says_and_returns_what_a_cold_one_does(
    package: Path, driver: subprocess.Popen[bytes], what: str
) -> None:
    warm = said(package, what, environment(package, driver))
    assert warm == said(package, what, environment(package, driver, **{VARIABLE: OFF}))
    assert warm[0] == {"three": 3, "text": 1, "kill": -signal.SIGTERM}.get(what, 0)


def test_a_wrong_argument_and_an_error_end_it_like_a_cold_one(package: Path, driver: subprocess.Popen[bytes]) -> None:
    warm, cold = environment(package, driver), environment(package, driver, **{VARIABLE: OFF})
    wrong = subprocess.run([sys.executable, str(package.parent / "job.py")], capture_output=True, env=warm)
    assert wrong.returncode == 2 and b"usage: job.py" in wrong.stderr
    status, _, errors = said(package, "fail", warm)
    assert status == said(package, "fail", cold)[0] == 1
    assert errors.splitlines()[-1] == "ValueError: it failed"


def test_jobs_of_one_driver_share_a_process_that_ends_with_it(package: Path, driver: subprocess.Popen[bytes]) -> None:
    variables = environment(package, driver)
    started, ran, server = who(package, variables)
    assert len({started, ran, server, os.getpid()}) == 4
    assert who(package, variables)[2] == server
    driver.kill()
    driver.wait()
    until(lambda: gone(server))
    started, ran, _ = who(package, variables)
    assert started == ran, "without its driver a job runs alone"


def test_the_process_is_another_one_for_another_driver_environment_or_code(
    package: Path, driver: subprocess.Popen[bytes]
) -> None:
    servers = [who(package, environment(package, driver))[2], who(package, environment(package, driver, MORE="1"))[2]]
    with subprocess.Popen(["sleep", "1000"]) as other:
        servers.append(who(package, environment(package, other))[2])
        other.kill()
    (package / "memgap/jobs.py").write_text(JOBS.replace("to stderr", "changed"))
    servers.append(who(package, environment(package, driver))[2])
    assert len(set(servers)) == 4
    assert "changed" in said(package, "plain", environment(package, driver))[2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_with_the_process_that_was_started_for_it(
    package: Path, driver: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    process = job(package, "wait", environment(package, driver))
    until((package.parent / "pid").exists)
    ran = int((package.parent / "pid").read_text())
    assert ran != process.pid
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    until(lambda: gone(ran))


def test_a_job_ends_with_its_driver(package: Path, driver: subprocess.Popen[bytes]) -> None:
    process = job(package, "wait", environment(package, driver))
    until((package.parent / "pid").exists)
    driver.kill()
    driver.wait()
    process.communicate()
    assert process.returncode != 0
    until(lambda: gone(int((package.parent / "pid").read_text())))


def test_a_server_that_dies_fails_its_job_in_one_sentence(package: Path, driver: subprocess.Popen[bytes]) -> None:
    variables = environment(package, driver)
    server = who(package, variables)[2]
    process = job(package, "wait", variables)
    until((package.parent / "pid").exists)
    os.kill(server, signal.SIGKILL)
    os.kill(int((package.parent / "pid").read_text()), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("memgap: the warm process died")
    assert who(package, variables)[2] != server


def test_an_idle_server_ends(package: Path, driver: subprocess.Popen[bytes]) -> None:
    server = package / "memgap/warm/server.py"
    server.write_text(server.read_text().replace("IDLE_S = 10.0", "IDLE_S = 0.1"))
    pid = who(package, environment(package, driver))[2]
    until(lambda: gone(pid))


def test_jobs_at_once_start_one_server(package: Path, driver: subprocess.Popen[bytes]) -> None:
    processes = [job(package, "who", environment(package, driver)) for _ in range(6)]
    parents = {process.communicate()[0].split()[-1] for process in processes}
    assert len(parents) == 1


def test_a_module_with_threads_or_an_error_runs_alone(package: Path, driver: subprocess.Popen[bytes]) -> None:
    start = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (package / "memgap/jobs.py").write_text(start + JOBS)
    started, ran, _ = who(package, environment(package, driver))
    assert started == ran
    (package / "memgap/jobs.py").write_text("import nothing_of_that_name\n")
    status, _, errors = said(package, "plain", environment(package, driver))
    assert status == 1 and errors.splitlines()[-1].startswith("ModuleNotFoundError")


def test_a_job_without_folders_for_temporary_files_is_warm(package: Path, driver: subprocess.Popen[bytes]) -> None:
    nowhere = str(package / "nowhere")
    places = ("TMPDIR", "XDG_RUNTIME_DIR", "HOME")
    started, ran, _ = who(package, environment(package, driver, **dict.fromkeys(places, nowhere)))
    assert started != ran


def test_a_driver_that_is_seen_from_elsewhere_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: dict[str, str] = {}
    claim(mine)
    assert driver_pid(mine) == os.getpid()
    assert driver_pid({}) is None and driver_pid({VARIABLE: OFF}) is None
    number, started, boot, *spaces = mine[VARIABLE].split()
    for other in ([number, "1", boot, *spaces], [number, started, "boot", *spaces], [number, started, boot, "mnt:[1]"]):
        assert driver_pid({VARIABLE: " ".join(other)}) is None
    off = {VARIABLE: OFF}
    claim(off)
    assert off[VARIABLE] == OFF
