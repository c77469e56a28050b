"""The servers behind a router, and the requests that it sends to them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memgap.load.decode import ReplyDecoder
from memgap.load.http1 import ClientConnection, Exchange, Pool, parse_url

TIMEOUT_S = 3600.0
"""The client's own limit ends a request long before."""
OWN_HEADERS = ("host", "connection", "content-length", "expect", "keep-alive")
"""Headers of a connection, which are not passed on."""
Sink = Callable[[bytes], None]


class MemberError(Exception):
    """A member that gave no whole reply."""


class Upstream(ClientConnection):
    """A connection to a member, which hands on each read as it comes where there is a sink."""

    sink: Sink | None = None

    def data_received(self, data: bytes) -> None:
        """See ClientConnection."""
        if self.sink is not None:
            self.sink(data)
        super().data_received(data)


@dataclass(frozen=True)
class Answer:
    """What came back: `keeps` is false where the end of the reply is the end of the connection."""

    status: int
    body: bytes
    keeps: bool


@dataclass
class Member:
    """One server. `outstanding`, `sent` and `failed` count requests that were sent to it."""

    name: str
    url: str
    role: str = ""
    bootstrap_port: int | None = None
    outstanding: int = 0
    sent: int = 0
    failed: int = 0
    _pool: Pool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._target = parse_url(self.url)
        self._pool = Pool(self._target, Upstream)

    @property
    def host(self) -> str:
        """The address without scheme and port."""
        return self._target.host

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, sink: Sink | None = None
    ) -> Answer:
        """Send a request and return when its reply is whole; with a `sink` the reply's bytes go there as they come, and
        the returned body is empty. Raises MemberError where none comes or it breaks off.
        """
        request = self._request(method, path, headers, body)
        self.outstanding += 1
        self.sent += 1
        try:
            resting = self._pool.resting()
            if resting is not None:
                exchange, connection = await self._exchange(resting, request, sink)
                if not exchange.unheard:  # the member may have closed a connection that rested
                    return self._answer(exchange, connection, sink)
            fresh = await self._pool.open()
            assert isinstance(fresh, Upstream)
            return self._answer(*await self._exchange(fresh, request, sink), sink)
        except (OSError, MemberError) as error:
            self.failed += 1
            raise MemberError(f"{self.name}: {error}") from error
        finally:
            self.outstanding -= 1

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        passed = {name: value for name, value in headers.items() if name not in OWN_HEADERS}
        passed |= {"host": self._target.authority, "content-length": str(len(body))}
        lines = [f"{method} {self._target.prefix}{path} HTTP/1.1", *(f"{name}: {one}" for name, one in passed.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    async def _exchange(
        self, connection: ClientConnection, request: bytes, sink: Sink | None
    ) -> tuple[Exchange, ClientConnection]:
        assert isinstance(connection, Upstream)
        exchange = Exchange(index=0, server_index=0)
        connection.sink = sink
        try:
            await connection.send(request, exchange, TIMEOUT_S)
        except asyncio.CancelledError:
            connection.stop("aborted", "the client has gone")
            raise
        finally:
            connection.sink = None
            self._pool.give_back(connection)
        return exchange, connection

    def _answer(self, exchange: Exchange, connection: ClientConnection, sink: Sink | None) -> Answer:
        if exchange.outcome != "done":
            raise MemberError(exchange.error or exchange.outcome)
        decoder, pieces = ReplyDecoder(), []
        for part in exchange.parts:
            pieces += decoder.feed(part)
            if sink is not None and decoder.head_complete:
                break
        return Answer(decoder.status or 0, b"" if sink is not None else b"".join(pieces), decoder.keep_alive)

    async def ask(self, path: str, headers: Mapping[str, str], document: Mapping[str, Any]) -> Answer:
        """Send a JSON document and return the whole reply. Raises MemberError."""
        return await self.send("POST", path, headers, json.dumps(document).encode())
