"""Runs the router until SIGTERM or SIGINT; see the package."""

import argparse
import asyncio
import gc
import json
import signal
from collections.abc import Sequence
from typing import cast

from memgap.http_request import Request, RequestError, RequestReader, reply_bytes
from memgap.load.loop import loop_factory
from memgap.router.members import Member, MemberError
from memgap.router.policies import POLICIES, Policy

GENERATING = ("/v1/completions", "/v1/chat/completions", "/generate")


class App:
    """What all connections share."""

    def __init__(self, members: Sequence[Member], policy: Policy) -> None:
        self.members, self.policy = members, policy

    def page(self) -> bytes:
        """Return the metrics page: requests sent, failed and in flight by member."""
        lines = []
        for name, kind in (("sent_total", "counter"), ("failed_total", "counter"), ("outstanding", "gauge")):
            lines.append(f"# TYPE memgap_router_{name} {kind}")
            for one in self.members:
                value = getattr(one, name.removesuffix("_total"))
                lines.append(f'memgap_router_{name}{{member="{one.name}",role="{one.role}"}} {value}')
        return "\n".join([*lines, ""]).encode()


class Front(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._written = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._reader = RequestReader(self._transport.write)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what a client that has gone was waiting for."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Gather a request."""
        self._reader.feed(data)
        if self._task is None:
            self._next()

    def _next(self) -> None:
        try:
            request = self._reader.next()
        except RequestError as error:
            self._refuse(error.status, str(error))
            self._transport.close()
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        self._written = False
        keeps = request.keep_alive
        try:
            keeps &= await self._serve(request)
        except (MemberError, ValueError) as error:
            if self._written:  # the client has to see that the reply is not whole
                self._transport.abort()
            else:
                self._refuse(502 if isinstance(error, MemberError) else 400, str(error))
        self._task = None
        if not keeps:
            self._transport.close()
        elif not self._transport.is_closing():
            self._next()

    async def _serve(self, request: Request) -> bool:
        """Answer; return whether the connection may be used again."""
        path = request.path.partition("?")[0]
        if path == "/health":
            self._write(reply_bytes(200, b"", "text/plain"))
        elif path == "/metrics":
            self._write(reply_bytes(200, self._app.page(), "text/plain; version=0.0.4; charset=utf-8"))
        elif path in GENERATING:
            return (await self._app.policy.serve(request, self._write)).keeps
        else:  # what every member answers alike, such as the list of models
            first = self._app.members[-1]
            sent = (request.method, request.path, request.headers, request.body)
            return (await first.send(*sent, sink=self._write)).keeps
        return True

    def _write(self, data: bytes) -> None:
        self._written = True
        self._transport.write(data)

    def _refuse(self, status: int, message: str) -> None:
        document = {"error": {"message": f"router: {message}", "type": "RouterError", "code": status}}
        self._transport.write(reply_bytes(status, json.dumps(document).encode(), "application/json"))


def parsed_member(text: str) -> Member:
    """Return the member of NAME[:ROLE[:BOOTSTRAP_PORT]]=URL. Raises ValueError."""
    named, _, url = text.partition("=")
    name, role, port = [*named.split(":"), "", ""][:3]
    if not name or not url:
        raise ValueError(f"{text!r} is not of the form NAME[:ROLE]=URL")
    return Member(name, url, role, int(port) if port else None)


async def serve(host: str, port: int, members: Sequence[Member], policy: Policy) -> None:
    """Serve until a signal comes."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(members, policy)
    server = await loop.create_server(lambda: Front(app), host, port, backlog=4096)
    print(f"INFO routing to {', '.join(one.url for one in members)}", flush=True)
    gc.collect()
    gc.freeze()
    await stop.wait()
    server.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="memgap.router", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--policy", choices=POLICIES, default="least-outstanding")
    parser.add_argument(
        "--member", action="append", required=True, type=parsed_member, metavar="NAME[:ROLE[:BOOTSTRAP_PORT]]=URL"
    )
    given = parser.parse_args(arguments)
    try:
        policy = POLICIES[given.policy](given.member)
    except ValueError as error:
        parser.error(f"--policy {given.policy}: {error}")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(given.host, given.port, given.member, policy))


if __name__ == "__main__":
    main()
