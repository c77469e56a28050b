"""Turns the stored reads of one reply into token events; runs after the load, not during it."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from memgap.load.decode import ReplyDecoder, ReplyError
from memgap.load.records import TokenSource

try:
    import orjson

    _loads: Callable[[bytes], Any] = orjson.loads
except ImportError:
    _loads = json.loads

_MESSAGE_CHARS = 300
MOST_CHOICES = 2**16
WHOLE = ("stop", "length", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence", "end_turn", "max_tokens")
"""Finish reasons of a reply that the model ended, or the length asked for; after another one it is not whole."""


class EventSplitter:
    """Cuts a body into the data of its server-sent events.

    Lines end with LF or CRLF, an empty line ends an event, lines without `data` are skipped.
    Source: WHATWG HTML standard, section 9.2.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, body: bytes) -> list[bytes]:
        """Return the data of each event that `body` completes."""
        fresh = not self._rest and not self._data
        if fresh and body.startswith(b"data: ") and body.find(b"\n\n") == len(body) - 2:
            data = body[6:-2]
            if b"\n" not in data:
                return [data]
        *lines, self._rest = (self._rest + body).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events

    def ends_there(self) -> bool:
        """Whether the body stopped right behind [DONE], without the empty line that ends an event."""
        left = [*self._data, self._rest.strip().removeprefix(b"data:").strip()]
        return b"[DONE]" in left


@dataclass(slots=True)
class ParsedReply:
    """What a reply says.

    `times_ns`, `tokens` and `choices` (its index): one entry an event, and choice in it, with at least one new token.
    `coalesced`: how many of these came in one read with the one before of their choice. `first_text_ns`: the first
    event with text that a user sees, a reasoning model's reasoning included; `first_answer_ns`: the first with text of
    the answer itself. `done`: the stream ended as it should ([DONE], or a whole body). `skipped`: events with neither a
    choice nor a count of tokens. `malformed`: what could not be read, or None. `message`: the server's error, or None.
    """

    http_status: int | None = None
    times_ns: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    coalesced: int = 0
    first_text_ns: int | None = None
    first_answer_ns: int | None = None
    chunks: int = 0
    skipped: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    token_source: TokenSource = "none"
    done: bool = False
    malformed: str | None = None
    message: str | None = None


def parse_reply(times_ns: Sequence[int], parts: Sequence[bytes], stream: bool = True) -> ParsedReply:
    """Return what the reads `parts`, made at `times_ns`, say; never raises for what a server may send.

    An event counts at the time of the read that completed it. New tokens of an event are, in order of
    preference and alike for the whole reply: the length of its `token_ids`; the growth of
    `usage.completion_tokens` in events with a choice, which is of that choice; 1 for an event with text. Without
    `stream` the body is one such event, which counts at the last read.
    """
    reply = ParsedReply()
    decoder = ReplyDecoder()
    splitter = EventSplitter()
    counts = _Counts()
    plain: list[bytes] = []
    for time_ns, part in zip(times_ns, parts, strict=True):
        try:
            pieces = decoder.feed(part)
        except ReplyError as error:
            reply.malformed = reply.malformed or str(error)
            break
        if decoder.status != 200 or not stream:
            plain.extend(pieces)
            continue
        for piece in pieces:
            for data in splitter.feed(piece):
                _read_event(data, time_ns, reply, counts)
    reply.http_status = decoder.status
    reply.done = reply.done or splitter.ends_there()
    if decoder.status not in (None, 200):
        reply.message = _error_message(b"".join(plain))
        reply.done = True
    elif plain:
        _read_event(b"".join(plain), times_ns[-1], reply, counts)
        reply.done = True
    counts.settle(reply)
    return reply


class _Counts:
    """The three ways to count, side by side, one entry an event with a choice. `usage` is the growth, `loose` what
    events without a choice told last."""

    def __init__(self) -> None:
        self.times_ns: list[int] = []
        self.choices: list[int] = []
        self.ids: list[int] = []
        self.usage: list[int] = []
        self.text: list[int] = []
        self.loose = 0
        self._told: dict[int, int] = {}
        self._reasons: dict[int, str] = {}

    def add(self, time_ns: int, index: int, ids: int, told: int | None, text: int) -> None:
        """Take over what an event says of a choice; `told` is its usage."""
        before = self._told.get(index, 0)
        # what was counted before does not go away: an event may name fewer, or none
        now = max(before, self.loose if told is None else told)
        self._told[index] = now
        self.times_ns.append(time_ns)
        self.choices.append(index)
        self.ids.append(ids)
        self.usage.append(now - before)
        self.text.append(text)

    def finished(self, index: int, reason: str) -> str:
        """Take over why a choice ended; returns the reply's reason, one that is not usual where there is one."""
        self._reasons[index] = reason
        odd = (one for one in self._reasons.values() if one.lower() not in WHOLE)
        return next(odd, reason)

    def settle(self, reply: ParsedReply) -> None:
        """Choose one way for the whole reply and fill in the token events."""
        source: TokenSource
        if any(self.ids):
            source, tokens = "token_ids", self.ids
        elif any(self.usage):
            source, tokens = "usage", self.usage
        elif any(self.text):
            source, tokens = "text", self.text
        else:
            return
        reply.token_source = source
        last_ns: dict[int, int] = {}
        for time_ns, choice, count in zip(self.times_ns, self.choices, tokens, strict=True):
            if count > 0:
                reply.times_ns.append(time_ns)
                reply.tokens.append(count)
                reply.choices.append(choice)
                reply.coalesced += time_ns == last_ns.get(choice)
                last_ns[choice] = time_ns


def _read_event(data: bytes, time_ns: int, reply: ParsedReply, counts: _Counts) -> None:
    """Take over what one event says; an event that says nothing of tokens is counted as skipped."""
    data = data.strip()
    if not data:
        return
    if data == b"[DONE]":
        reply.done = True
        return
    reply.chunks += 1
    try:
        event = _load(data)
        if not isinstance(event, dict):
            raise ValueError
        if event.get("error") or event.get("object") == "error":
            reply.message = reply.message or _error_message(data)
            return
        told, completed = _read_usage(event.get("usage"), reply)
        choices = event.get("choices")
        if not choices or choices[0] is None:
            reply.skipped += not told
            counts.loose = counts.loose if completed is None else completed
            return
        found = [_choice(one) for one in choices]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        reply.malformed = reply.malformed or f"an event is not as the API has it: {_clip(data)}"
        return
    for one in found:
        counts.add(time_ns, one.place, one.ids, completed, int(one.text))
        if one.text and reply.first_text_ns is None:
            reply.first_text_ns = time_ns
        if one.answer and reply.first_answer_ns is None:
            reply.first_answer_ns = time_ns
        if one.reason:
            reply.finish_reason = counts.finished(one.place, one.reason)


class _Choice(NamedTuple):
    """What an event says of a choice: its index, the number of new token ids, whether there is text that a user sees
    and whether it is of the answer, and why it ended, if it did."""

    place: int
    ids: int
    text: bool
    answer: bool
    reason: Any


def _choice(choice: Any) -> _Choice:
    ids, answer, thought = choice.get("token_ids"), choice.get("text"), None
    if answer is None:
        delta = choice.get("delta") or choice.get("message") or {}
        answer, thought = delta.get("content"), delta.get("reasoning") or delta.get("reasoning_content")
    index = choice.get("index")
    index = index if isinstance(index, int) and 0 <= index < MOST_CHOICES else 0
    return _Choice(index, len(ids) if ids else 0, bool(answer or thought), bool(answer), choice.get("finish_reason"))


def _read_usage(usage: Any, reply: ParsedReply) -> tuple[bool, int | None]:
    """Take over the counts that are there; returns whether there was any, and that of output tokens."""
    if not isinstance(usage, dict):
        return False, None
    prompt, output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    reply.prompt_tokens = reply.prompt_tokens if prompt is None else prompt
    reply.output_tokens = reply.output_tokens if output is None else output
    return prompt is not None or output is not None, output


def _count(value: Any) -> int | None:
    """Return a number of tokens, None for anything but a whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return None
    return int(value) if value == int(value) else None


def _load(data: bytes) -> Any:
    """Return what JSON says, with Python's reader where the strict one refuses it (NaN, Infinity)."""
    try:
        return _loads(data)
    except ValueError:
        return json.loads(data)


def _clip(data: bytes) -> str:
    return data[:_MESSAGE_CHARS].decode("utf-8", "replace")


def _error_message(body: bytes) -> str:
    """Return the message of an error body in the forms that servers use, or else the body's first
    characters."""
    try:
        error = _loads(body)
        if isinstance(error, dict) and "error" in error:
            error = error["error"]
        if isinstance(error, dict) and "message" in error:
            error = error["message"]
        if isinstance(error, str):
            return error[:_MESSAGE_CHARS]
    except ValueError:
        pass
    return _clip(body)
