"""The requests as bytes, made before the window so that sending costs no JSON."""

import json
from collections.abc import Sequence
from typing import Any

from memgap.errors import UserError
from memgap.load.http1 import Target, post_head, post_rest
from memgap.load.records import LoadPlan, Prompt

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


def request_body(plan: LoadPlan, prompt: Prompt) -> dict[str, Any]:
    """Return the JSON object that asks for `prompt`; raises UserError for token ids in a chat."""
    body: dict[str, Any] = {
        "model": plan.model,
        "max_tokens": prompt.output_tokens,
        "temperature": plan.temperature,
        "stream": plan.stream,
    }
    if plan.stream:
        body["stream_options"] = {"include_usage": True}
    if plan.samples > 1:
        body["n"] = plan.samples
    if plan.extensions and (plan.token_ids or not plan.stream):
        body["return_token_ids"] = True
    if plan.extensions and plan.stream:
        body["stream_options"]["continuous_usage_stats"] = True
    if plan.extensions and plan.ignore_eos:
        body |= {"ignore_eos": True, "min_tokens": prompt.output_tokens}
    if plan.endpoint == "completions":
        body["prompt"] = prompt.text if prompt.token_ids is None else [int(one) for one in prompt.token_ids]
    elif prompt.text is None:
        raise UserError("load.endpoint is 'chat', which needs prompts of text, but a prompt holds token ids.")
    else:
        body["messages"] = [{"role": "user", "content": prompt.text}]
    return body


def request_heads(plan: LoadPlan, targets: Sequence[Target]) -> list[bytes]:
    """Return what a request to each server begins with."""
    return [post_head(target, PATHS[plan.endpoint]) for target in targets]


def request_bytes(plan: LoadPlan, prompts: Sequence[Prompt], tag: str) -> list[bytes]:
    """Return the HTTP request of each prompt but for its head, which its server decides; ids are `{tag}-{index}`."""
    secret = {} if plan.api_key is None else {"authorization": f"Bearer {plan.api_key}"}
    requests = []
    for index, prompt in enumerate(prompts):
        body = json.dumps(request_body(plan, prompt), separators=(",", ":")).encode()
        headers = {"x-request-id": f"{tag}-{index}", **secret}
        requests.append(post_rest(body, headers))
    return requests
