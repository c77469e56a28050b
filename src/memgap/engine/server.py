"""A running server of an engine: started, waited for with early-death detection, and always stopped."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.ports import free_port, require_free

PORT_TRIES = 3
LOG_TAIL_BYTES = 64 * 1024
STOP_TIMEOUT_S = 60.0
HEALTHY_S = 2.0
"""A server that answers its health check for so long after failed requests is taken as well."""
UNHEALTHY_LIMIT_S = 20.0
"""A server that does not within this time is stopped."""


class ServerFailureError(Exception):
    """The server did not become ready, or died. `kind` is what a point records; `log_tail` the end of its log."""

    def __init__(self, kind: str, message: str, log_tail: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail


class EngineServer:
    """One server of one server record, as a context manager.

    `start` may be called again after a failure; every start has its own port and its own API key, which reaches the
    server through its environment only.
    """

    def __init__(
        self,
        server: Mapping[str, Any],
        model_target: str,
        python: str,
        log: Path,
        startup_timeout_s: float,
        port: int | None = None,
    ) -> None:
        self._server = server
        self._model_target = model_target
        self._python = python
        self._log = log
        self._startup_timeout_s = startup_timeout_s
        self._fixed_port = port
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.adapter = adapter_for(server["engine"]["adapter"])
        self.command: list[str] = []
        self.api_key = ""
        self.url = ""
        self.pid = 0
        self.start_s = 0.0
        self.facts = EngineFacts()

    def __enter__(self) -> "EngineServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            return False
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def settle(self) -> bool:
        """After failed requests: return once the server is known to be well or gone (true), or hangs (false).

        A server whose engine has died answers for some seconds more. One that hangs is stopped.
        """
        healthy_since_s, deadline_s = time.monotonic(), time.monotonic() + UNHEALTHY_LIMIT_S
        while self.alive and time.monotonic() - healthy_since_s < HEALTHY_S:
            if not _answers(self.url + self.adapter.ready_path):
                healthy_since_s = time.monotonic()
                if healthy_since_s > deadline_s:
                    self.stop()
                    return False
            time.sleep(0.1)
        return True

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Start the server and return when it is ready; `check` is called while waiting and may raise.

        Raises ServerFailureError with the kind "oom", "bad_config", "start_timeout" or "crash"; a port that was taken
        between its choice and the server's bind is retried with another one.
        """
        for attempt in range(PORT_TRIES):
            try:
                self._start_once(check)
                return
            except ServerFailureError as failure:
                self.stop()
                if failure.kind != "port_in_use" or attempt == PORT_TRIES - 1:
                    failure.kind = "crash" if failure.kind == "port_in_use" else failure.kind
                    raise
            except BaseException:
                self.stop()
                raise

    def _start_once(self, check: Callable[[], None]) -> None:
        where = f"engines.{self._server['engine']['name']}.port"
        port = free_port() if self._fixed_port is None else require_free(self._fixed_port, where)
        self.api_key = secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{port}"
        launch = self.adapter.launch(self._python, self._server, self._model_target, port, self.api_key)
        self.command = launch.argv
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        began_s = time.monotonic()
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "memgap.engine.supervisor", "--log", str(self._log), "--", *launch.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env={**_clean_environment(), **launch.env},
        )
        self.pid = self._read_pid()
        self._wait_until_ready(began_s, check)
        self.start_s = time.monotonic() - began_s
        self.facts = self.adapter.facts(self.url, self._server, self._log_text())

    def _read_pid(self) -> int:
        assert self._supervisor is not None and self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        if not line:
            raise ServerFailureError(
                "bad_config", f"the server's command cannot be run: {self.command[0]}", self.log_tail()
            )
        return int(json.loads(line)["pid"])

    def _wait_until_ready(self, began_s: float, check: Callable[[], None]) -> None:
        while True:
            if not self.alive:
                tail = self.log_tail()
                kind = self.adapter.failure_kind(self._log_text()) or "crash"
                raise ServerFailureError(
                    kind, f"the server ended {time.monotonic() - began_s:.0f} s after its start", tail
                )
            if _answers(self.url + self.adapter.ready_path) and self._listens():
                return
            if time.monotonic() - began_s > self._startup_timeout_s:
                message = (
                    f"the server was not ready after {self._startup_timeout_s:.0f} s (engines.*.startup_timeout_s)"
                )
                raise ServerFailureError("start_timeout", message, self.log_tail())
            check()
            time.sleep(0.2)

    def _listens(self) -> bool:
        """Whether the port belongs to the server: another program's may answer as well where the port was lost."""
        try:
            root = psutil.Process(self.pid)
            port = int(self.url.rpartition(":")[2])
            return any(
                one.status == psutil.CONN_LISTEN and one.laddr.port == port
                for process in (root, *root.children(recursive=True))
                for one in process.net_connections("tcp")
            )
        except psutil.AccessDenied:
            return True
        except psutil.Error:
            return False

    def detokenize(self, model: str, token_ids: list[int]) -> str:
        """Return the text of token ids, by the server's own tokenizer; ServerFailureError where it does not answer."""
        body = json.dumps({"model": model, "tokens": token_ids}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"}
        request = urllib.request.Request(f"{self.url}/detokenize", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return str(json.loads(response.read())["prompt"])
        except (OSError, ValueError, KeyError) as error:
            raise ServerFailureError(
                "crash", f"the server cannot turn token ids into text: {error}", self.log_tail()
            ) from error

    def death(self) -> ServerFailureError:
        """Return why a server that ran has ended, from its log."""
        kind = self.adapter.failure_kind(self._log_text())
        return ServerFailureError("oom" if kind == "oom" else "crash", "the server died under load", self.log_tail())

    def stop(self) -> None:
        """Stop the server and everything it started; returns when nothing of it is left."""
        if self._supervisor is None:
            return
        assert self._supervisor.stdin is not None and self._supervisor.stdout is not None
        self._supervisor.stdin.close()
        try:
            self._supervisor.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._supervisor.stdout.close()
        self._supervisor = None

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the server's log."""
        return "\n".join(self._log_text().splitlines()[-lines:])

    def _log_text(self) -> str:
        """Return the log, of a long one its beginning and its end."""
        try:
            data = self._log.read_bytes()
        except OSError:
            return ""
        if len(data) > 4 * LOG_TAIL_BYTES:
            data = data[: 2 * LOG_TAIL_BYTES] + b"\n...\n" + data[-2 * LOG_TAIL_BYTES :]
        return data.decode("utf-8", "replace")


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without what belongs to its own virtual environment."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False
