"""Servers that close a connection after a reply, with a word or without: no request is lost to it."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from memgap.load.records import LoadPlan, LoadResult, Prompt
from memgap.load.runner import run
from tests.support.loads import status_counts

EVENTS = (
    b'data: {"choices": [{"text": "a", "token_ids": [7], "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"text": "b", "token_ids": [8], "finish_reason": "length"}], "usage": {"prompt_tokens": 3, '
    b'"completion_tokens": 2, "total_tokens": 5}}\n\ndata: [DONE]\n\n'
)


@dataclass
class _Server:
    """Answers a request a connection and then closes it, `wait_s` after the reply; counts what it answered."""

    headers: bytes
    wait_s: float = 0.0
    reset: bool = False
    answers: int = 1
    answered: int = 0
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            for _ in range(self.answers):
                received = b""
                while b"\r\n\r\n" not in received or not received.rstrip().endswith(b"}"):
                    part = connection.recv(65536)
                    if not part:
                        return
                    received += part
                with self.lock:
                    self.answered += 1
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + self.headers + EVENTS)
            time.sleep(self.wait_s)
            if self.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


LENGTH = b"content-length: %d\r\n\r\n" % len(EVENTS)


@contextmanager
def serving(server: _Server) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def asked(url: str, count: int, concurrency: int) -> LoadResult:
    plan = LoadPlan("m", "closed", count, concurrency=concurrency, request_timeout_s=5.0)
    return run(plan, [Prompt(2, [3, 4, 5])] * count, [url])


@pytest.mark.parametrize(
    "server",
    [
        _Server(b"connection: close\r\n" + LENGTH),
        _Server(b"connection: close\r\n\r\n"),
        _Server(LENGTH),
        _Server(LENGTH, wait_s=0.02),
        _Server(LENGTH, wait_s=0.02, reset=True),
        _Server(LENGTH, answers=3, wait_s=0.01),
        _Server(LENGTH, answers=3, wait_s=0.01, reset=True),
    ],
    ids=[
        "said",
        "until close",
        "at once",
        "a moment later",
        "with a reset",
        "after three",
        "after three, with a reset",
    ],
)
def test_no_request_is_lost_to_a_server_that_closes(server: _Server) -> None:
    with serving(server) as url:
        result = asked(url, 40, 3)
    assert status_counts(result.results) == {"ok": 40}
    assert server.answered == 40, "each request was answered once"


def test_a_server_that_answers_nothing_is_not_asked_for_ever() -> None:
    class Silent(_Server):
        def _talk(self, connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                self.answered += 1

    server = Silent(b"")
    with serving(server) as url:
        result = asked(url, 10, 2)
    assert set(status_counts(result.results)) == {"broken_stream"}
    assert server.answered <= 20
