"""HTTP/1.1 for the mock: one connection, requests answered one after the other, connections kept alive."""

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from memgap import __version__
from memgap.http_request import Request, RequestError, RequestReader, reply_bytes
from memgap.mock_server.chunks import STREAM_HEAD, Ask, Events, whole_reply
from memgap.mock_server.engine import Engine
from memgap.mock_server.metrics import metrics_page
from memgap.mock_server.options import Options
from memgap.mock_server.requests import RefusedError, parse_ask
from memgap.mock_server.stamps import Stamps
from memgap.scheduling.scheduler import Sequence


class App:
    """What all connections share."""

    def __init__(self, options: Options, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.engine = engine
        self.loop = loop
        self.stamps = Stamps() if options.stamp_file else None
        self.generations = 0
        self.pages = 0
        self.transfers: list[int] = []
        self.reset_path = "" if options.faults.kept_cache_share else "/reset_prefix_cache"
        self.connections: set[Connection] = set()

    def next_number(self) -> int:
        """Return the number of a new generation request, counted from 0."""
        self.generations += 1
        return self.generations - 1


class Reply:
    """The choices of one generation request: writes their tokens to the connection, faults included."""

    def __init__(self, connection: "Connection", ask: Ask, number: int) -> None:
        faults = connection.app.options.faults
        self._connection = connection
        self._ask = ask
        self._number = number
        self._coalesce = faults.coalesce
        self._stamps = connection.app.stamps
        self.finish_reason = "length"
        output_tokens = ask.output_tokens
        if _hit(faults.short_output_every, number) and output_tokens > 1:
            self.finish_reason = "stop"
            output_tokens //= 2
        if _hit(faults.abort_every, number) and output_tokens > 1:
            self.finish_reason = "abort"
            output_tokens //= 2
        output_tokens += faults.surplus_tokens
        self._bad = output_tokens // 2 if _hit(faults.malformed_event_every, number) else -1
        self._break = output_tokens // 2 if _hit(faults.break_stream_every, number) else -1
        counted = round(len(ask.prompt_ids) * (1 + faults.longer_prompts_share))
        self._events = [Events(ask, number, self.finish_reason, counted, one) for one in range(ask.choices)]
        self._write: Callable[[bytes], object] = connection.write
        self._miscount = faults.miscount_tokens
        if faults.delay_writes_s:
            loop, delay_s = connection.app.loop, faults.delay_writes_s
            self._write = lambda data: loop.call_later(delay_s, connection.write, data)
        self._latencies = connection.app.engine.latencies
        self._accepted_s = time.monotonic()
        self._left, self._written = ask.choices, 0
        shared = len(ask.prompt_ids) // connection.app.options.block_size
        self.sequences = [
            Sequence(len(ask.prompt_ids), output_tokens, Choice(self, one), forked_blocks=shared if one else 0)
            for one in range(ask.choices)
        ]

    def token(self, choice: "Choice", index: int, last: bool) -> None:
        """Write token `index` of a choice, or keep it back until enough have gathered for one event."""
        if self._connection.closed:
            return
        now_s = time.monotonic()
        (self._latencies.itl if index else self._latencies.ttft).add(now_s - (choice.last_s or self._accepted_s))
        choice.last_s = now_s
        self._left -= last
        self._written += 1
        if last:
            self._latencies.e2e.add(now_s - self._accepted_s)
        if index == self._break:
            self._connection.drop()
            return
        events = self._events[choice.number]
        if self._ask.stream:
            choice.pending += 1
            if choice.pending == self._coalesce or last:
                first, count = index + 1 - choice.pending, choice.pending
                choice.pending = 0
                spoil = first <= self._bad <= index
                event = events.broken() if spoil else events.tokens(first, count, last)
                if self._stamps is not None:
                    self._stamps.add(self._number, first, count, time.monotonic_ns())
                whole = last and not self._left
                self._write(event + events.end(self._written + self._miscount) if whole else event)
        elif last and not self._left:
            body = whole_reply(self._ask, self._number, index + 1, self.finish_reason)
            self._connection.send_json(200, body)
        if last and not self._left:
            self._connection.app.engine.completed(self.finish_reason)
            self._connection.finished()


class Choice:
    """The sink of one choice: its number in its reply, the tokens that it keeps back, the time of the last one."""

    def __init__(self, reply: Reply, number: int) -> None:
        self._reply, self.number = reply, number
        self.pending, self.last_s = 0, 0.0

    def token(self, index: int, last: bool) -> None:
        """See Sink."""
        self._reply.token(self, index, last)


def _hit(every: int, number: int) -> bool:
    return every > 0 and (number + 1) % every == 0


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.closed = False
        self._busy = False
        self._reply: Reply | None = None
        self._keep_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._reader = RequestReader(self.write)
        self.app.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take a request in flight out of the engine, as real engines do for clients that leave."""
        self.closed = True
        self.app.connections.discard(self)
        if self._reply is not None:
            for sequence in self._reply.sequences:
                self.app.engine.scheduler.abort(sequence)
            self._reply = None

    def drop(self) -> None:
        """Break the connection in the middle of a reply."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Gather bytes until a request is whole."""
        self._reader.feed(data)
        if not self._busy:
            self._serve()

    def finished(self) -> None:
        """End a reply: close, or look for the next request."""
        self._reply = None
        self._busy = False
        if not self._keep_alive:
            self._transport.close()
        else:
            self.app.loop.call_soon(self._serve)

    def send_json(self, status: int, body: Any) -> None:
        """Write a whole JSON reply."""
        self._send(status, json.dumps(body, separators=(",", ":")).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.write(reply_bytes(status, body, content_type))

    def _error(self, status: int, message: str) -> None:
        names = {401: "AuthenticationError", 404: "NotFoundError", 500: "InternalServerError"}
        kind = names.get(status, "BadRequestError")
        self.send_json(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})

    def _serve(self) -> None:
        """Answer the next request, once it is whole; close after something that cannot be read as one."""
        if self._busy or self.closed:
            return
        try:
            request = self._reader.next()
        except RequestError as error:
            self._error(error.status, str(error))
            self._transport.close()
            return
        if request is not None:
            self._busy = True
            self._keep_alive = request.keep_alive
            self._answer(request)

    def _answer(self, request: Request) -> None:
        method, path, headers = request.method, request.path.partition("?")[0], request.headers
        options = self.app.options
        if path in ("/v1/completions", "/v1/chat/completions", "/v1/models") and not self._may(headers):
            self.send_json(401, {"error": "Unauthorized"})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            if method == "POST":
                self._generate(path == "/v1/chat/completions", headers, request.body)
                return
            self._error(405, "use POST")
        elif path == "/metrics" and method == "GET":
            if options.faults.stalled_metrics_s:
                self.app.loop.call_later(options.faults.stalled_metrics_s, self._metrics)
            else:
                self._metrics()
            return
        elif path in ("/start_profile", "/stop_profile") and method == "POST" and options.profile_folder:
            trace = self.app.engine.trace
            (trace.start if path == "/start_profile" else trace.write)()
            self._send(200, b"", "text/plain")
        elif (method, path) in (("GET", "/health"), ("POST", self.app.reset_path)):
            self._send(200, b"", "text/plain")
        elif path == "/version" and method == "GET":
            self.send_json(200, {"version": f"mock-{__version__}"})
        elif path == "/v1/models" and method == "GET":
            model = {
                "id": options.public_name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "memgap-mock",
                "root": options.model,
                "parent": None,
                "max_model_len": options.max_model_len,
            }
            self.send_json(200, {"object": "list", "data": [model]})
        else:
            self._error(404, f"{method} {path} is not served")
        self.finished()

    def _may(self, headers: Mapping[str, str]) -> bool:
        key = self.app.options.api_key
        given = headers.get("authorization", "")
        return not key or hmac.compare_digest(given.encode("latin-1"), f"Bearer {key}".encode())

    def _metrics(self) -> None:
        if not self.closed:
            app = self.app
            page = metrics_page(app.engine.scheduler, app.engine.latencies, app.options, app.pages, app.transfers)
            app.pages += 1
            self._send(200, page, "text/plain; version=0.0.4; charset=utf-8")
            self.finished()

    def _generate(self, chat: bool, headers: Mapping[str, str], body: bytes) -> None:
        app = self.app
        number = app.next_number()
        request_id = headers.get("x-request-id") or f"{number:08x}"
        if app.stamps is not None:
            app.stamps.name(number, request_id)
        try:
            if _hit(app.options.faults.http_500_every, number):
                raise RefusedError(500, "an internal error, as ordered")
            ask = parse_ask(body, chat=chat, options=app.options, request_id=request_id)
        except RefusedError as refusal:
            self._error(refusal.status, refusal.message)
            self.finished()
            return
        if ask.fetches:
            app.transfers.append(len(ask.prompt_ids))
        self._reply = Reply(self, ask, number)
        if ask.stream:
            self.write(STREAM_HEAD)
        for sequence in self._reply.sequences:
            app.engine.submit(sequence)
