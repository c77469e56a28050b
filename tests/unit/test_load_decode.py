"""Replies taken apart: HTTP coding, events, and ways to count tokens."""

import json
import random
from itertools import pairwise

import pytest

from memgap.load.decode import ReplyDecoder, ReplyError
from memgap.load.sse import EventSplitter, parse_reply

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(**body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _stream(*events: bytes) -> list[bytes]:
    return [_HEAD, *(_chunk(event) for event in (*events, b"data: [DONE]\n\n")), b"0\r\n\r\n"]


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    marks = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(1, 30)))})
    return [data[a:b] for a, b in pairwise(marks)]


def test_chunked_reply_is_the_same_however_it_is_cut() -> None:
    rng = random.Random(1)
    bodies = [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400))) for _ in range(20)]
    wire = b"HTTP/1.1 100 Continue\r\n\r\n" + _HEAD + b"".join(map(_chunk, bodies))
    wire += b"0\r\nnote: trailer\r\n\r\n"
    for _ in range(200):
        decoder = ReplyDecoder()
        got = b"".join(piece for part in _cut(wire, rng) for piece in decoder.feed(part))
        assert got == b"".join(bodies)
        assert decoder.complete
        assert decoder.surplus == b""


def test_decoder_agrees_with_httptools() -> None:
    httptools = pytest.importorskip("httptools")
    rng = random.Random(2)

    class Sink:
        def __init__(self) -> None:
            self.body = b""
            self.complete = False

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.complete = True

    wires = [
        b"".join(_stream(_event(a=1), _event(b="x" * 3000))),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1A;x=y\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n",
    ]
    for wire in wires:
        for _ in range(50):
            decoder, sink = ReplyDecoder(), Sink()
            parser = httptools.HttpResponseParser(sink)
            got = b""
            for part in _cut(wire, rng):
                parser.feed_data(part)
                got += b"".join(decoder.feed(part))
            assert (got, decoder.complete, decoder.status) == (
                sink.body,
                sink.complete,
                parser.get_status_code(),
            )


def test_reply_without_length_ends_with_the_connection() -> None:
    decoder = ReplyDecoder()
    assert decoder.feed(b"HTTP/1.0 200 OK\r\n\r\nab") == [b"ab"]
    assert not decoder.complete
    assert decoder.until_close
    assert not decoder.keep_alive


@pytest.mark.parametrize(
    "wire",
    [b"SSH-2.0-x\r\n\r\n", _HEAD + b"zz\r\n", _HEAD + b"-5\r\n", _HEAD + b"2\r\nabcd\r\n", b"x" * 70000],
)
def test_what_is_not_http_is_refused(wire: bytes) -> None:
    with pytest.raises(ReplyError):
        ReplyDecoder().feed(wire)


def test_events_survive_any_cut_and_line_end() -> None:
    rng = random.Random(3)
    body = b'data: {"a":1}\n\n: comment\n\nevent: x\r\ndata: one\r\ndata: two\r\n\r\ndata:three\n\n'
    for _ in range(100):
        splitter = EventSplitter()
        events = [event for part in _cut(body, rng) for event in splitter.feed(part)]
        assert events == [b'{"a":1}', b"one\ntwo", b"three"]


def test_token_ids_are_preferred_and_an_empty_first_event_is_no_token() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    parts = _stream(
        _event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
        _event(choices=[{"index": 0, "delta": {"content": "a"}, "token_ids": [1]}]),
        _event(choices=[{"delta": {"content": "b"}, "token_ids": [2, 3], "finish_reason": "length"}]),
        _event(choices=[], usage=usage),
    )
    reply = parse_reply(range(10, 10 + len(parts)), parts)
    assert (reply.token_source, reply.times_ns, reply.tokens) == ("token_ids", [12, 13], [1, 2])
    assert (reply.prompt_tokens, reply.output_tokens, reply.finish_reason) == (7, 3, "length")
    assert (reply.chunks, reply.done, reply.malformed) == (4, True, None)


def test_the_first_text_is_what_a_user_sees_first() -> None:
    special, half = {"delta": {"content": ""}, "token_ids": [1]}, {"delta": {}, "token_ids": [2]}
    parts = _stream(
        *(
            _event(choices=[one])
            for one in (
                {"delta": {"role": "assistant", "content": ""}},
                *(special, half),
                {"delta": {"reasoning_content": "hm"}, "token_ids": [3]},
                {"delta": {"reasoning": "so"}, "token_ids": [4]},
                {"delta": {"content": "Yes"}, "token_ids": [5]},
                {"delta": {"content": ""}, "token_ids": [6], "finish_reason": "stop"},
            )
        )
    )
    reply = parse_reply(range(len(parts)), parts)
    assert reply.times_ns == [2, 3, 4, 5, 6, 7]
    assert (reply.first_text_ns, reply.first_answer_ns) == (4, 6)
    parts = _stream(_event(choices=[{"text": ""}]), _event(choices=[{"text": " a", "token_ids": [9]}]))
    reply = parse_reply(range(len(parts)), parts)
    assert (reply.first_text_ns, reply.first_answer_ns) == (2, 2)
    assert parse_reply([], []).first_text_ns is None


def test_usage_counts_where_there_are_no_ids() -> None:
    parts = _stream(
        *(
            _event(choices=[{"text": "x"}], usage={"prompt_tokens": 1, "completion_tokens": count})
            for count in (1, 4, 4, 6)
        )
    )
    reply = parse_reply(range(len(parts)), parts)
    assert (reply.token_source, reply.times_ns, reply.tokens) == ("usage", [1, 2, 4], [1, 3, 2])


def test_text_counts_where_there_is_nothing_else() -> None:
    parts = _stream(*(_event(choices=[{"text": text}]) for text in ("", "a", "b")))
    reply = parse_reply(range(len(parts)), parts)
    assert (reply.token_source, reply.times_ns, reply.tokens) == ("text", [2, 3], [1, 1])


def test_events_of_one_read_share_its_time() -> None:
    parts = _stream(*(_event(choices=[{"text": "a"}]) for _ in range(4)))
    reads = [parts[0], parts[1] + parts[2] + parts[3][:20], parts[3][20:] + parts[4], *parts[5:]]
    reply = parse_reply(range(len(reads)), reads)
    assert reply.times_ns == [1, 1, 2, 2]
    assert reply.coalesced == 2


@pytest.mark.parametrize("bad", [b"data: {oops\n\n", b"data: 5\n\n", b'data: {"choices":5}\n\n'])
def test_malformed_events_are_noted_and_the_rest_is_read(bad: bytes) -> None:
    good = _event(choices=[{"text": "a"}])
    reply = parse_reply(range(6), _stream(good, bad, good))
    assert reply.malformed is not None
    assert reply.tokens == [1, 1]


def test_error_in_the_stream_is_kept() -> None:
    reply = parse_reply(range(4), _stream(_event(error={"message": "engine died", "code": 500})))
    assert reply.message == "engine died"


def test_error_reply_gives_its_message() -> None:
    body = b'{"error":{"message":"too long","code":400}}'
    wire = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reply = parse_reply([5], [wire])
    assert (reply.http_status, reply.message) == (400, "too long")


def test_nothing_received_is_nothing() -> None:
    reply = parse_reply([], [])
    assert (reply.http_status, reply.tokens, reply.done) == (None, [], False)


ODDITIES = {
    "usage of details only": _event(choices=[], usage={"prompt_tokens_details": {"cached_tokens": 0}}),
    "usage with nulls": _event(choices=[], usage={"prompt_tokens": None, "completion_tokens": None}),
    "usage that is text": _event(choices=[], usage={"prompt_tokens": "7", "completion_tokens": "x"}),
    "usage that is not finite": b'data: {"choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":-Infinity}}\n\n',
    "usage below zero": _event(choices=[], usage={"prompt_tokens": -1, "completion_tokens": -3}),
    "usage that is a list": _event(choices=[], usage=[1]),
    "no choices": _event(usage={"prompt_tokens": 7}),
    "choices that are null": _event(choices=None),
    "a choice that is null": _event(choices=[None]),
    "an empty data line": b"data:\n\n",
    "blank data": b"data:   \n\n",
    "a ping": _event(type="ping"),
    "an empty object": b"data: {}\n\n",
    "a comment": b": keep-alive\n\n",
}


@pytest.mark.parametrize("odd", ODDITIES.values(), ids=ODDITIES)
@pytest.mark.parametrize("place", range(3))
def test_an_event_that_says_nothing_of_tokens_spoils_nothing(odd: bytes, place: int) -> None:
    good = [
        _event(choices=[{"text": "a"}], usage={"prompt_tokens": 7, "completion_tokens": 1}),
        _event(choices=[{"text": "b"}], usage={"prompt_tokens": 7, "completion_tokens": 3}),
    ]
    last = _event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3})
    parts = _stream(*good[:place], odd, *good[place:], last)
    reply = parse_reply(range(len(parts)), parts)
    assert (reply.malformed, reply.message, reply.done) == (None, None, True)
    assert (reply.prompt_tokens, reply.output_tokens, reply.tokens) == (7, 3, [1, 2])


def test_counts_of_usage_do_not_go_back() -> None:
    counts = (2, 0, 5)
    parts = _stream(
        *(_event(choices=[{"text": "a"}], usage={"prompt_tokens": 1, "completion_tokens": one}) for one in counts)
    )
    assert parse_reply(range(len(parts)), parts).tokens == [2, 3]


def test_an_end_with_blanks_is_an_end() -> None:
    parts = [_HEAD, _chunk(_event(choices=[{"text": "a"}])), _chunk(b"data: [DONE] \n\n"), b"0\r\n\r\n"]
    reply = parse_reply(range(len(parts)), parts)
    assert (reply.done, reply.malformed) == (True, None)


def test_an_error_without_the_word_is_an_error() -> None:
    parts = _stream(_event(object="error", message="out of cache", code=500))
    assert parse_reply(range(len(parts)), parts).message == "out of cache"


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data:[DONE]\n", b"data: [DONE]\r\n"])
def test_an_end_without_its_empty_line_is_an_end(end: bytes) -> None:
    event = _chunk(_event(choices=[{"text": "a"}]))
    assert parse_reply([1, 2], [_HEAD + event, _chunk(end)]).done
    assert not parse_reply([1, 2], [_HEAD + event, _chunk(end[:10])]).done


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"Connection: Keep-Alive, Upgrade", True),
        (b"Connection: upgrade, Close", False),
        (b"Connection: keep-alive\r\nConnection: close", False),
        (b"X: y", True),
    ],
)
def test_a_connection_is_kept_unless_one_of_its_options_says_close(head: bytes, kept: bool) -> None:
    decoder = ReplyDecoder()
    decoder.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + head + b"\r\n\r\n")
    assert decoder.keep_alive is kept


def test_a_length_may_be_said_twice_but_not_otherwise() -> None:
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nab"
    assert ReplyDecoder().feed(twice) == [b"ab"]
    with pytest.raises(ReplyError):
        ReplyDecoder().feed(twice.replace(b"length: 2", b"length: 3"))
