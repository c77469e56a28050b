"""A running server of an engine: started, waited for with early-death detection, and always stopped."""

import json
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

from memgap.engine.adapters import adapter_for
from memgap.engine.base import SCRATCH, EngineFacts, Launch
from memgap.engine.failure import ServerFailureError, first_error
from memgap.host.ports import free_port, require_free
from memgap.host.protocol import HostPlan
from memgap.host.startup_phases import StartupPhases
from memgap.host.supervised import Supervised
from memgap.loopback import answers, fetch
from memgap.redact import redact

PORT_TRIES = 3
LOG_TAIL_BYTES = 64 * 1024
HEALTHY_S = 2.0
"""A server that answers its health check for so long after failed requests is taken as well."""
UNHEALTHY_LIMIT_S = 20.0
"""A server that does not within this time is stopped."""


class EngineServer:
    """One server of one server record, as a context manager.

    `start` may be called again after a failure; every start has its own port and, unless `api_key` is given, its own
    API key, which reaches the server through its environment only. The plan's variables add to those of the server
    record. With a `profile_folder` the server's profiler can be switched on and writes there.
    """

    def __init__(
        self, plan: HostPlan, log: Path, api_key: str | None = None, profile_folder: Path | None = None
    ) -> None:
        self._plan, self._server, self._log = plan, plan.record, log
        self._given_key, self.profile_folder = api_key, profile_folder
        self._process: Supervised | None = None
        self.adapter = adapter_for(plan.record["engine"]["adapter"])
        self.command: list[str] = []
        self.api_key = ""
        self.url = ""
        self.pid = 0
        self.start_s = 0.0
        self.facts = EngineFacts()
        self._phases = StartupPhases(log, {})

    def __enter__(self) -> "EngineServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.alive

    @property
    def startup_s(self) -> dict[str, float]:
        """How long each phase of the last start took."""
        return self._phases.durations_s

    def settle(self) -> bool:
        """After failed requests: return once the server is known to be well or gone (true), or hangs (false).

        A server whose engine has died answers for some seconds more. One that hangs is stopped.
        """
        healthy_since_s, deadline_s = time.monotonic(), time.monotonic() + UNHEALTHY_LIMIT_S
        while self.alive and time.monotonic() - healthy_since_s < HEALTHY_S:
            if not answers(self.url + self.adapter.alive_path):
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
        port = free_port() if self._plan.port is None else require_free(self._plan.port, where)
        self.api_key = self._given_key or secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{port}"
        launch = self.adapter.launch(self._plan.python, self._server, self._plan.model_target, port, self.api_key)
        began_s = time.monotonic()
        scratch = self._scratch_folder(launch)
        self.command = [one.replace(SCRATCH, str(scratch)) for one in [*launch.argv, *self._profiler_flags()]]
        socket_variable = self.adapter.socket_folder_variable
        variable = {socket_variable: str(scratch)} if socket_variable is not None else {}
        self._process = Supervised(
            self.command, self._log, {**variable, **launch.env, **self._plan.env}, scratch=scratch
        )
        self.pid = self._process.pid
        self._phases = StartupPhases(self._log, self.adapter.startup_marks)
        self._wait_until_ready(began_s, check)
        self.start_s = time.monotonic() - began_s
        self._phases.ready(self.start_s)
        self.facts = self.adapter.facts(self.url, self._server, self._log_text(), self.api_key)

    def _scratch_folder(self, launch: Launch) -> Path | None:
        """Make the folder for the server's sockets and files, for this user only; its path has to be short."""
        if not (self.adapter.socket_folder_variable or launch.files):
            return None
        folder = Path(tempfile.mkdtemp(prefix="memgap-"))
        for name, text in launch.files.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    def _profiler_flags(self) -> list[str]:
        return self.adapter.profiler_flags(self.profile_folder.absolute()) if self.profile_folder is not None else []

    def _wait_until_ready(self, began_s: float, check: Callable[[], None]) -> None:
        while True:
            if not self.alive:
                tail, log = self.log_tail(), self._log_text()
                kind = self.adapter.failure_kind(log) or "crash"
                message = f"the server ended {time.monotonic() - began_s:.0f} s after its start"
                if why := redact(first_error(log)):
                    message += f" ({why})"
                raise ServerFailureError(kind, message, tail)
            self._phases.look(time.monotonic() - began_s)
            if answers(self.url + self.adapter.ready_path) and self._listens():
                return
            if time.monotonic() - began_s > self._plan.startup_timeout_s:
                message = (
                    f"the server was not ready after {self._plan.startup_timeout_s:.0f} s (engines.*.startup_timeout_s)"
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
        try:
            answer = fetch(f"{self.url}/detokenize", 30, body=body, headers=headers)[1]
            return str(json.loads(answer)[self.adapter.detokenized_field])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServerFailureError(
                "crash", f"the server cannot turn token ids into text: {error}", self.log_tail()
            ) from error

    def death(self) -> ServerFailureError:
        """Return why a server that ran has ended, from its log."""
        kind = self.adapter.failure_kind(self._log_text())
        return ServerFailureError("oom" if kind == "oom" else "crash", "the server died under load", self.log_tail())

    def stop(self) -> None:
        """Stop the server and everything it started; returns when nothing of it is left."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the server's log, secrets redacted: they are kept in points."""
        return redact("\n".join(self._log_text().splitlines()[-lines:]), [self.api_key] if self.api_key else [])

    def _log_text(self) -> str:
        """Return the log, of a long one its beginning and its end."""
        try:
            data = self._log.read_bytes()
        except OSError:
            return ""
        if len(data) > 4 * LOG_TAIL_BYTES:
            data = data[: 2 * LOG_TAIL_BYTES] + b"\n...\n" + data[-2 * LOG_TAIL_BYTES :]
        text = data.decode("utf-8", "replace")
        return text.replace(self.api_key, "[API key]") if self.api_key else text
