"""A raw HTTP/1.1 client: connections that are kept alive and a hot path that only stores (time, bytes).

While the load runs nothing is decoded but the head of a reply and its end; the rest waits until after the
run.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import urlsplit

from memgap.errors import UserError
from memgap.load.decode import ReplyDecoder, ReplyError

Outcome = Literal["open", "done", "lost", "timeout", "refused", "client_limit", "aborted", "malformed"]

IDLE_LIMIT_S = 2.0
"""A connection that rested longer is not used again: servers close idle ones after some seconds."""

PORTS = {"http": 80, "https": 443}
_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
_now_ns = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Target:
    """One server: where to connect, and the prefix of its paths."""

    host: str
    port: int
    prefix: str
    authority: str
    tls: bool = False


def parse_url(url: str) -> Target:
    """Return the target of a base URL such as http://127.0.0.1:8000.

    Raises UserError for anything but HTTP, plain or over TLS, with a host and a valid port.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), -1
    if parts.scheme not in PORTS or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise UserError(f"the server's address {url!r} is not of the form http://host:port.")
    authority = parts.netloc.rpartition("@")[2]
    port = PORTS[parts.scheme] if port is None else port
    return Target(parts.hostname, port, parts.path.rstrip("/"), authority, parts.scheme == "https")


def post_head(target: Target, path: str) -> bytes:
    """Return the part of a POST request that depends on the server: its first two lines."""
    return f"POST {target.prefix}{path} HTTP/1.1\r\nhost: {target.authority}\r\n".encode("latin-1")


def post_rest(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return the part of a POST request that is the same for every server: other headers and a JSON body."""
    lines = ["accept: text/event-stream", f"content-type: application/json\r\ncontent-length: {len(body)}"]
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass(slots=True)
class Exchange:
    """One request's life on the wire: monotonic times in ns and the bytes of each read."""

    index: int
    server_index: int
    sent_ns: int = 0
    end_ns: int = 0
    times_ns: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    outcome: Outcome = "open"
    error: str | None = None

    @property
    def unheard(self) -> bool:
        """Whether the connection ended without a byte of a reply."""
        return self.outcome == "lost" and not self.parts


class ClientConnection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self.rested_since_ns: int | None = None
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._decoder = ReplyDecoder()
        self._fed = 0
        self._streaming = False
        self._times: list[int] = []
        self._parts: list[bytes] = []

    @property
    def usable(self) -> bool:
        """Whether another request may be sent over it."""
        if self.closed or self._exchange is not None or self._transport.is_closing():
            return False
        rested = self.rested_since_ns
        return rested is None or _now_ns() - rested < IDLE_LIMIT_S * 1e9

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, exchange: Exchange, timeout_s: float) -> "asyncio.Future[None]":
        """Send a request; the returned future is done when `exchange` is (it never holds an exception)."""
        self._exchange = exchange
        self._times = exchange.times_ns
        self._parts = exchange.parts
        self._decoder = ReplyDecoder()
        self._fed = 0
        self._streaming = False
        self._waiter = self._loop.create_future()
        self._timer = self._loop.call_later(timeout_s, self.stop, "timeout", "no complete reply in time")
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        """Store the read; look no further than for the end of the reply."""
        self._times.append(_now_ns())
        self._parts.append(data)
        if not self._streaming or data.endswith(b"\r\n\r\n") or len(data) < 4:
            self._look(data)

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in flight, if any."""
        self.closed = True
        if self._exchange is None:
            return
        if self._decoder.until_close and exc is None:
            self._end("done", None)
        else:
            self._end("lost", f"the connection ended before the reply did ({exc or 'closed by the server'})")

    def stop(self, outcome: Outcome, error: str) -> None:
        """Break the connection and end the exchange in flight with `outcome`."""
        self.closed = True
        self._transport.abort()
        self._end(outcome, error)

    def close(self) -> None:
        """Close a connection at rest."""
        self.closed = True
        self._transport.close()

    def _look(self, data: bytes) -> None:
        """Decode what may hold the head or the end of the reply."""
        if self._exchange is None:
            self.stop("malformed", "")
            return
        if self._streaming:
            tail = data if len(data) >= len(_END) else b"".join(self._parts[-len(_END) :])
            if tail.endswith(_END):
                self._end("done", None)
                return
        decoder = self._decoder
        try:
            for part in self._parts[self._fed :]:
                decoder.feed(part)
        except ReplyError as error:
            self.stop("malformed", str(error))
            return
        self._fed = len(self._parts)
        self._streaming = decoder.head_complete and decoder.chunked
        if decoder.complete:
            if decoder.surplus or not decoder.keep_alive:
                self.close()
            self._end("done", None)

    def _end(self, outcome: Outcome, error: str | None) -> None:
        exchange, waiter = self._exchange, self._waiter
        if exchange is None:
            return
        self._exchange = None
        self._streaming = False
        self._times, self._parts = [], []
        self.rested_since_ns = exchange.end_ns = _now_ns()
        exchange.outcome = outcome
        exchange.error = error
        if not self._decoder.keep_alive:
            self.close()
        if self._timer is not None:
            self._timer.cancel()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Pool:
    """Connections to one server, the last used first."""

    def __init__(self, target: Target, kind: type[ClientConnection] = ClientConnection) -> None:
        self._target, self._kind = target, kind
        self._tls = ssl.create_default_context() if target.tls else None
        self._resting: list[ClientConnection] = []
        self._all: set[ClientConnection] = set()

    async def open(self) -> ClientConnection:
        """Return a new connection; raises OSError where the server cannot be reached."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(self._kind, self._target.host, self._target.port, ssl=self._tls)
        self._all.add(connection)
        return connection

    def resting(self) -> ClientConnection | None:
        """Return a usable connection that rests, or None."""
        while self._resting:
            connection = self._resting.pop()
            if connection.usable:
                return connection
            connection.close()
            self._all.discard(connection)
        return None

    def give_back(self, connection: ClientConnection) -> None:
        """Let a connection rest for the next request, or forget it where it is closed."""
        if connection.closed:
            self._all.discard(connection)
        else:
            self._resting.append(connection)

    async def fill(self, count: int) -> None:
        """Open connections until `count` rest, as far as the server lets; failures show when requests are
        sent."""
        missing = count - len(self._resting)
        for start in range(0, missing, 128):
            wanted = [self.open() for _ in range(min(128, missing - start))]
            opened = await asyncio.gather(*wanted, return_exceptions=True)
            self._resting.extend(one for one in opened if isinstance(one, ClientConnection))
            if any(isinstance(one, BaseException) for one in opened):
                return

    def stop(self, reason: str) -> None:
        """Break every connection; requests in flight end as aborted."""
        for connection in list(self._all):
            connection.stop("aborted", reason)
        self._all.clear()
        self._resting.clear()
