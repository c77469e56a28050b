"""Bytes of the replies: SSE events and bodies in the shape vLLM gives them.

The events of one stream differ only in a few numbers, so each stream formats them from
byte templates made once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NOTHING = b"%.0a"
"""Takes one argument of a bytes template and prints nothing: all templates take the same arguments."""

VOCABULARY = 32000
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: memgap-mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one generation request asks for; lengths in tokens."""

    chat: bool
    prompt_ids: tuple[int, ...]
    output_tokens: int
    stream: bool
    return_ids: bool
    final_usage: bool
    continuous_usage: bool
    request_id: str
    model: str
    created: int
    hands_over: bool = False
    """Whether another server is to fetch the prompt's KV cache (vLLM's `kv_transfer_params`)."""
    fetches: bool = False
    choices: int = 1


def token_id(number: int, index: int) -> int:
    """Return the made-up id of output token `index` of the `number`th request."""
    return (number * 31 + index * 7919) % VOCABULARY


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _frame(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


class Events:
    """Writes the SSE events of one choice of a stream as chunks of HTTP/1.1 chunked coding."""

    def __init__(self, ask: Ask, number: int, finish_reason: str, prompt_tokens: int, choice: int = 0) -> None:
        self._ask = ask
        self._choice = choice
        self._number = number
        self._prompt = prompt_tokens
        object_name = "chat.completion.chunk" if ask.chat else "text_completion"
        self._head = (
            f'{{"id":{_json(ask.request_id)},"object":"{object_name}","created":{ask.created},'
            f'"model":{_json(ask.model)},"choices":['
        )
        self._middle = self._template(b"null")
        self._last = self._template(b'"%b"' % finish_reason.encode())

    def _template(self, finish: bytes) -> bytes:
        """Return an event that takes (text: bytes, ids: bytes, total tokens, completion tokens)."""
        ask = self._ask
        ids = b"[%b]" if ask.return_ids else b"null" + _NOTHING
        if ask.chat:
            choice = b'{"index":%d,' % self._choice
            choice += b'"delta":{"content":"%b"},"logprobs":null,"finish_reason":' + finish
            choice += b',"token_ids":' + ids if ask.return_ids else _NOTHING
        else:
            choice = b'{"index":%d,"text":"%%b","logprobs":null,"finish_reason":' % self._choice + finish
            choice += b',"stop_reason":null,"prompt_token_ids":null,"token_ids":' + ids
        if ask.continuous_usage:
            usage = b',"usage":{"prompt_tokens":%d,"total_tokens":%%d,"completion_tokens":%%d}' % self._prompt
        else:
            usage = _NOTHING * 2
        return b"data: " + self._head.encode().replace(b"%", b"%%") + choice + b"}]" + usage + b"}\n\n"

    def tokens(self, first: int, count: int, last: bool) -> bytes:
        """Return one event with output tokens `first` .. `first + count - 1`, framed as an HTTP chunk."""
        done = first + count
        template = self._last if last else self._middle
        if count == 1:
            ids = b"%d" % token_id(self._number, first)
            text = b" w" + ids
        else:
            numbers = [b"%d" % token_id(self._number, index) for index in range(first, done)]
            ids = b",".join(numbers)
            text = b"".join(b" w" + number for number in numbers)
        event = template % (text, ids, self._prompt + done, done)
        if first:
            return b"%x\r\n%b\r\n" % (len(event), event)
        return self._opening(event)

    def _opening(self, event: bytes) -> bytes:
        """Add to the first event what only it carries: the role (chat), the prompt's token ids."""
        ask = self._ask
        if not ask.chat:
            if ask.return_ids:
                shown = b'"prompt_token_ids":' + _json(ask.prompt_ids).encode()
                event = event.replace(b'"prompt_token_ids":null', shown, 1)
            return _frame(event)
        role = f'{{"index":{self._choice},"delta":{{"role":"assistant","content":""}},'
        role += '"logprobs":null,"finish_reason":null}]'
        usage = f',"usage":{_json(self._usage(0))}' if ask.continuous_usage else ""
        prompt = f',"prompt_token_ids":{_json(ask.prompt_ids)}' if ask.return_ids else ""
        return _frame(f"data: {self._head}{role}{usage}{prompt}}}\n\n".encode()) + _frame(event)

    def broken(self) -> bytes:
        """Return an event whose JSON is cut off."""
        return _frame(f"data: {self._head[:-3]}\n\n".encode())

    def end(self, output_tokens: int) -> bytes:
        """Return the last usage event (where asked for), [DONE] and the end of the body."""
        if not self._ask.final_usage:
            return DONE
        usage = _json(self._usage(output_tokens))
        return _frame(f'data: {self._head}],"usage":{usage}}}\n\n'.encode()) + DONE

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return usage_counts(self._prompt, output_tokens)


def usage_counts(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return the `usage` object of the OpenAI API."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }


def whole_reply(ask: Ask, number: int, output_tokens: int, finish_reason: str) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    ids = [token_id(number, index) for index in range(output_tokens)]
    text = "".join(f" w{one}" for one in ids)
    choice: dict[str, Any] = {"logprobs": None, "finish_reason": finish_reason}
    choice |= {"stop_reason": None, "token_ids": ids if ask.return_ids else None}
    prompt_ids: Sequence[int] | None = ask.prompt_ids if ask.return_ids else None
    body: dict[str, Any] = {
        "id": ask.request_id,
        "object": "chat.completion" if ask.chat else "text_completion",
        "created": ask.created,
        "model": ask.model,
        "usage": usage_counts(len(ask.prompt_ids), output_tokens * ask.choices),
    }
    if ask.hands_over:
        body["kv_transfer_params"] = {
            "do_remote_prefill": True,
            "remote_engine_id": "mock",
            "remote_block_ids": [number],
        }
    if ask.chat:
        choice["message"] = {"role": "assistant", "content": text}
        body["prompt_token_ids"] = prompt_ids
    else:
        choice["text"] = text
        choice["prompt_token_ids"] = prompt_ids
    return {**body, "choices": [{"index": index, **choice} for index in range(ask.choices)]}
