"""Servers of the simulated engine, and programs that behave like a bad one."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer
from tests.support.records import small_study


def make_server(tmp_path: Path, timeout_s: float = 600, **args: Any) -> EngineServer:
    """Return a server of the simulated engine with these flags."""
    record = next(iter(small_study(server={"step-base-ms": 1.0, **args}).points.values())).record
    return EngineServer(HostPlan(record, "unused", sys.executable, tmp_path, timeout_s), tmp_path / "server.log")


STUBBORN = (
    "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print('up', flush=True); time.sleep(600)"
)


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Listen on a port of 127.0.0.1 and give every connection the same reply; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
