"""NVIDIA MPS for the servers of one session: a daemon of its own, with private folders, that always ends with it.

The daemon runs in the foreground under the same supervisor as a server, so that it ends with a killed session as well.
Its pipes and logs lie in a new folder (CUDA_MPS_PIPE_DIRECTORY, CUDA_MPS_LOG_DIRECTORY), so that it neither meets nor
stops another user's daemon. No setting of the card is touched.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from memgap.engine.failure import ServerFailureError
from memgap.host.supervised import Supervised
from memgap.redact import redact

CONTROL = "nvidia-cuda-mps-control"
READY_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 10.0
FAILED = "mps_failed"
"""The status of points whose MPS daemon did not start or went away."""


class Mps:
    """One MPS daemon; `env` is what its clients need in their environment, empty while it does not run.

    `environment` is that of the clients as far as it is not this process's: its CUDA_VISIBLE_DEVICES is the daemon's.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._chosen = (environment or {}).get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._folder: Path | None = None
        self._daemon: Supervised | None = None
        self.env: dict[str, str] = {}

    @property
    def alive(self) -> bool:
        """Whether the daemon runs and answers."""
        return self._daemon is not None and self._daemon.alive and self._ask("get_server_list") is not None

    @property
    def pid(self) -> int | None:
        """The process id of the daemon."""
        return self._daemon.pid if self._daemon is not None else None

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Start the daemon and return once it answers; raises ServerFailureError of the kind "mps_failed"."""
        if shutil.which(CONTROL) is None:
            raise ServerFailureError(FAILED, f"{CONTROL} is not on the PATH; MPS comes with NVIDIA's driver", "")
        # a short path: the daemon's sockets lie in it
        self._folder = Path(tempfile.mkdtemp(prefix="memgap-mps-"))
        self.env = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }
        for path in self.env.values():
            Path(path).mkdir()
        daemon_env = dict(self.env)
        if chosen := self._chosen:
            daemon_env["CUDA_VISIBLE_DEVICES"] = chosen
            # the daemon shows its clients the GPUs it was given itself, numbered anew
            self.env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(len(chosen.split(",")))))
        try:
            self._daemon = Supervised([CONTROL, "-f"], self._folder / "daemon.log", daemon_env, scratch=self._folder)
            deadline_s = time.monotonic() + READY_TIMEOUT_S
            while not self.alive:
                if not self._daemon.alive:
                    raise ServerFailureError(FAILED, "the MPS daemon ended right after its start", self.log_tail())
                if time.monotonic() > deadline_s:
                    message = f"the MPS daemon did not answer within {READY_TIMEOUT_S:.0f} s"
                    raise ServerFailureError(FAILED, message, self.log_tail())
                check()
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the daemon, by its own command where it still answers, and remove its folders."""
        if self._daemon is not None:
            if self._daemon.alive:
                self._ask("quit")
                self._daemon.wait(ANSWER_TIMEOUT_S)
            self._daemon.stop()
            self._daemon = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self.env = {}

    def log_tail(self) -> str:
        """Return the end of the daemon's log."""
        if self._folder is None:
            return ""
        parts = []
        for path in (self._folder / "daemon.log", self._folder / "log" / "control.log"):
            if path.exists():
                parts += path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return redact("\n".join(parts))

    def _ask(self, command: str) -> str | None:
        """Return the daemon's answer to a command; None where it gives none."""
        try:
            answer = subprocess.run(
                [CONTROL],
                input=f"{command}\n",
                capture_output=True,
                text=True,
                timeout=ANSWER_TIMEOUT_S,
                env={**os.environ, **self.env},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout if answer.returncode == 0 and "annot find" not in answer.stderr else None
