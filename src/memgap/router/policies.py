"""How a router serves a request: by which member, or by which of them together.

Sources of the two protocols between prefill and decode servers: vLLM's NixlConnector (`kv_transfer_params`), SGLang's
disaggregation (`bootstrap_host`, `bootstrap_port`, `bootstrap_room`).
"""

import asyncio
import itertools
import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from memgap.engine.disaggregation import BOOTSTRAP, DECODE, NIXL, PREFILL
from memgap.http_request import Request
from memgap.router.members import Answer, Member, MemberError, Sink

FIRST_STEP = {"stream": False, "max_tokens": 1}
"""What a prefill server is asked for: the KV cache of the prompt, which it has after one token."""
NOT_FIRST = ("stream_options", "min_tokens", "max_completion_tokens", "n")
PULLED = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    **dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")),
}


class Policy(Protocol):
    """Serves one request at a time, many at once."""

    async def serve(self, request: Request, sink: Sink) -> Answer:
        """Write the reply to the sink and return what it was. Raises MemberError, ValueError for a body that cannot be
        read; then the sink has got nothing of a reply that was whole."""


def least_outstanding(members: Sequence[Member]) -> Member:
    """Return the member with the fewest requests in flight, the one that got fewest of all where several have."""
    return min(members, key=lambda one: (one.outstanding, one.sent))


class OneOf:
    """Each request goes to one member, whichever `choose` names."""

    def __init__(self, choose: Callable[[], Member]) -> None:
        self._choose = choose

    async def serve(self, request: Request, sink: Sink) -> Answer:
        """See Policy."""
        return await self._choose().send(request.method, request.path, request.headers, request.body, sink)


class NixlPull:
    """A prefill server makes the KV cache, a decode server fetches it and answers."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._prefill, self._decode = of_role(members, PREFILL), of_role(members, DECODE)

    async def serve(self, request: Request, sink: Sink) -> Answer:
        """See Policy."""
        document = _document(request)
        headers = {**request.headers, "x-request-id": request.headers.get("x-request-id") or uuid.uuid4().hex}
        first = {name: value for name, value in document.items() if name not in NOT_FIRST}
        first |= {**FIRST_STEP, "kv_transfer_params": PULLED}
        prefill = least_outstanding(self._prefill)
        answer = await prefill.ask(request.path, headers, first)
        if answer.status != 200:
            raise MemberError(
                f"{prefill.name} answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
            )
        handed_over = json.loads(answer.body).get("kv_transfer_params")
        if not handed_over:
            raise MemberError(f"{prefill.name} handed no KV cache over")
        body = json.dumps({**document, "kv_transfer_params": handed_over}).encode()
        return await least_outstanding(self._decode).send(request.method, request.path, headers, body, sink)


class Bootstrap:
    """A prefill and a decode server of SGLang get the request at once, and meet at the prefill server's own port."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._prefill, self._decode = of_role(members, PREFILL), of_role(members, DECODE)
        self._rooms = random.Random()

    async def serve(self, request: Request, sink: Sink) -> Answer:
        """See Policy."""
        prefill, decode = least_outstanding(self._prefill), least_outstanding(self._decode)
        room = self._rooms.getrandbits(63)
        place = {"bootstrap_host": prefill.host, "bootstrap_port": prefill.bootstrap_port, "bootstrap_room": room}
        body = json.dumps({**_document(request), **place}).encode()
        sent = (request.method, request.path, request.headers, body)
        _, answer = await asyncio.gather(prefill.send(*sent, sink=lambda _: None), decode.send(*sent, sink=sink))
        return answer


def of_role(members: Sequence[Member], role: str) -> list[Member]:
    """Return the members of a role. Raises ValueError where there is none."""
    found = [one for one in members if one.role == role]
    if not found:
        raise ValueError(f"no member has the role {role}")
    return found


def _document(request: Request) -> Mapping[str, Any]:
    document = json.loads(request.body)
    if not isinstance(document, dict):
        raise ValueError("the body is no JSON object")
    return document


def _round_robin(members: Sequence[Member]) -> Policy:
    turns = itertools.cycle(members)
    return OneOf(lambda: next(turns))


POLICIES: Mapping[str, Callable[[Sequence[Member]], Policy]] = {
    "round-robin": _round_robin,
    "least-outstanding": lambda members: OneOf(lambda: least_outstanding(members)),
    NIXL: NixlPull,
    BOOTSTRAP: Bootstrap,
}
"""Policy -> what makes it of the members."""
