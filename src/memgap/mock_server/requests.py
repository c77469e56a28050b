"""Reads the JSON of a generation request; what an engine would refuse is refused here."""

import json
import time
from typing import Any

from memgap.mock_server.chunks import VOCABULARY, Ask
from memgap.mock_server.options import Options


class RefusedError(Exception):
    """A request that is answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def parse_ask(body: bytes, *, chat: bool, options: Options, request_id: str) -> Ask:
    """Return what the request asks for.

    Raises RefusedError: 400 for a body that is not as the API wants it or too long for the model,
    404 for another model.
    A text counts as one token a word (at least one); a chat adds nothing for its template.
    """
    try:
        asked = json.loads(body)
    except ValueError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise RefusedError(400, "the body is not a JSON object")
    if asked.get("model", options.public_name) != options.public_name:
        raise RefusedError(404, f"The model `{asked['model']}` does not exist.")
    choices = asked.get("n") or 1
    if not _is_count(choices) or choices < 1:
        raise RefusedError(400, "n must be a whole number of at least 1")
    if choices > 1 and asked.get("temperature") == 0:
        raise RefusedError(400, "n must be 1 when using greedy sampling")
    prompt_ids = _chat_ids(asked.get("messages")) if chat else _prompt_ids(asked.get("prompt"))
    room = options.max_model_len - len(prompt_ids)
    if room < 1:
        raise RefusedError(
            400,
            f"This model's maximum context length is {options.max_model_len} tokens. "
            f"However, your request has {len(prompt_ids)} input tokens.",
        )
    output_tokens = asked.get("max_completion_tokens") if chat else None
    if output_tokens is None:
        output_tokens = asked.get("max_tokens")
    if output_tokens is None:
        output_tokens = room if chat else min(16, room)
    if not _is_count(output_tokens) or output_tokens < 1:
        raise RefusedError(400, "max_tokens must be a whole number of at least 1")
    if output_tokens > room:
        raise RefusedError(
            400,
            f"max_tokens={output_tokens} and {len(prompt_ids)} input tokens exceed "
            f"max_model_len={options.max_model_len}.",
        )
    stream_options = asked.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise RefusedError(400, "stream_options must be an object")
    transfer = asked.get("kv_transfer_params") or {}
    if not isinstance(transfer, dict):
        raise RefusedError(400, "kv_transfer_params must be an object")
    final_usage = bool(stream_options.get("include_usage"))
    return Ask(
        chat=chat,
        prompt_ids=prompt_ids,
        output_tokens=output_tokens,
        stream=bool(asked.get("stream")),
        return_ids=bool(asked.get("return_token_ids")),
        final_usage=final_usage,
        continuous_usage=final_usage and bool(stream_options.get("continuous_usage_stats")),
        request_id=("chatcmpl-" if chat else "cmpl-") + request_id,
        model=options.public_name,
        created=int(time.time()),
        hands_over=bool(transfer.get("do_remote_decode")),
        fetches=bool(transfer.get("do_remote_prefill")),
        choices=choices,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text_ids(text: str) -> tuple[int, ...]:
    return tuple(sum(word.encode()) % VOCABULARY for word in text.split()) or (0,)


def _prompt_ids(prompt: Any) -> tuple[int, ...]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list | str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _text_ids(prompt)
    if isinstance(prompt, list) and prompt and all(_is_count(one) for one in prompt):
        return tuple(prompt)
    raise RefusedError(400, "prompt must be one text or one list of token ids that is not empty")


def _chat_ids(messages: Any) -> tuple[int, ...]:
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages must be a list that is not empty")
    words = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            raise RefusedError(400, "each message must hold a content text")
        words.append(content)
    return _text_ids(" ".join(words))
