"""A server is only taken as ready when it is the one that was started, and it is stopped however it fails."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from memgap.errors import UserError
from memgap.host import server as server_module
from memgap.host.ports import free_port, require_free
from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer, ServerFailureError
from tests.support.records import small_study
from tests.support.servers import answering, make_server
from tests.support.waiting import until


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b""],
    ids=["another web server", "another protocol", "no reply"],
)
def test_a_port_lost_to_another_program_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    with answering(reply) as lost:
        ports = [lost, free_port()]
        second = ports[1]
        monkeypatch.setattr(server_module, "free_port", lambda: ports.pop(0))
        with make_server(tmp_path) as server:
            server.start()
            assert server.url == f"http://127.0.0.1:{second}"
            assert server.alive


def test_a_port_that_is_always_lost_ends_in_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"") as lost:
        tries: list[int] = []
        monkeypatch.setattr(server_module, "free_port", lambda: tries.append(lost) or lost)
        with make_server(tmp_path) as server, pytest.raises(ServerFailureError) as caught:
            server.start()
    assert caught.value.kind == "crash"
    assert len(tries) == server_module.PORT_TRIES


def test_a_fixed_port_that_is_taken_is_the_users_to_mend(tmp_path: Path) -> None:
    with answering(b"") as taken:
        whole = next(iter(small_study().points.values())).record
        server = EngineServer(HostPlan(whole, "unused", sys.executable, tmp_path, 20, port=taken), tmp_path / "log")
        with server, pytest.raises(UserError, match=rf"engines\.mock\.port: port {taken} on 127.0.0.1 is in use"):
            server.start()
    assert require_free(taken, "again") == taken


def test_every_start_has_a_new_key_and_the_server_asks_for_it(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        server.start()
        first = server.api_key
        environment = psutil.Process(server.pid).environ()
        assert first in environment.values()
        server.stop()
        server.stop()
        server.start()
        assert server.api_key != first


def test_a_check_that_raises_while_waiting_stops_the_server(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    server = make_server(tmp_path, fault="slow-start:60")
    with server, pytest.raises(KeyboardInterrupt):
        server.start(stop)
    assert not server.alive
    assert not psutil.pid_exists(server.pid)


def test_a_child_of_the_server_is_gone_with_it(tmp_path: Path) -> None:
    with make_server(tmp_path, **{"spawn-child": True}) as server:
        server.start()
        children = [child.pid for child in psutil.Process(server.pid).children()]
        assert len(children) == 1
    assert not psutil.pid_exists(children[0])


def test_a_child_of_a_server_that_failed_to_start_is_gone(tmp_path: Path) -> None:
    server = make_server(tmp_path, **{"spawn-child": True, "fault": "fail-start"})
    with server, pytest.raises(ServerFailureError) as caught:
        server.start()
    assert not psutil.pid_exists(int(caught.value.log_tail.split("child process ")[1].split()[0]))


def test_an_interpreter_that_is_not_there_is_told_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = {**next(iter(small_study().points.values())).record}
    whole["engine"] = {**whole["engine"], "adapter": "vllm"}
    with EngineServer(HostPlan(whole, "unused", "/no/such/python", tmp_path, 20), tmp_path / "log") as server:
        with pytest.raises(ServerFailureError, match="/no/such/python") as caught:
            server.start()
        assert not server.alive
    assert caught.value.kind == "bad_config"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_settling_tells_a_well_a_dead_and_a_hanging_server_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEALTHY_S", 0.2)
    monkeypatch.setattr(server_module, "UNHEALTHY_LIMIT_S", 0.2)
    with make_server(tmp_path) as server:
        server.start()
        assert server.settle()
        assert server.alive
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.alive)
        assert server.settle()
        server.stop()
        server.start()
        monkeypatch.setattr(server_module, "answers", lambda url: False)
        assert not server.settle()
        assert not server.alive


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOG_TAIL_BYTES", 10)
    server = make_server(tmp_path)
    (tmp_path / "server.log").write_text("CUDA out of memory" + "\nmiddle" * 100 + "\nthe end")
    assert server.log_tail(1) == "the end"
    assert server.death().kind == "oom"
    (tmp_path / "server.log").unlink()
    assert server.log_tail() == ""
    assert server.death().kind == "crash"


def test_a_server_that_was_never_started_is_not_alive(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    assert not server.alive
    server.stop()
    assert server.command == []


def test_tokens_that_cannot_be_turned_into_text_are_a_failure_of_the_server(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        server.start()
        with pytest.raises(ServerFailureError, match="cannot turn token ids into text"):
            server.detokenize("tiny-opt", [1, 2])
