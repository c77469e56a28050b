"""What is asked of the twin: a load and a server, as changes to one that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memgap.errors import UserError
from memgap.load.arrivals import intended_offsets_s
from memgap.load.records import LoadPlan
from memgap.models.architecture import ModelArchitecture
from memgap.models.cache import cache_type
from memgap.twin.simulate import Request
from memgap.twin.stored import Observation


@dataclass(frozen=True)
class Question:
    """A load and a server; what is None stays as it was measured.

    `cap`: requests in flight of a closed loop, or `rate_req_s` with an `arrival` (and `burstiness`) of an open one.
    Lengths are the least and the greatest, drawn evenly. `prefix_tokens` are shared by all requests of one of
    `prefixes` groups. `kv_tokens` is the pool; with another `kv_dtype` alone it grows or shrinks by its bytes.
    """

    cap: int | None = None
    rate_req_s: float | None = None
    arrival: str = "poisson"
    burstiness: float = 1.0
    requests: int | None = None
    prompt_tokens: tuple[int, int] | None = None
    output_tokens: tuple[int, int] | None = None
    prefix_tokens: int | None = None
    prefixes: int = 1
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    chunked: bool | None = None
    kv_tokens: int | None = None
    kv_dtype: str | None = None
    seed: int = 0


def asked(question: Question, like: Observation) -> Observation:
    """Return the load of a question on a server like that of a point; raises UserError for what cannot be."""
    if (question.cap is None) == (question.rate_req_s is None):
        raise UserError("ask for a cap (closed loop) or a rate (open loop), one of them.")
    load = question.cap or question.rate_req_s or 0.0
    if load <= 0:
        raise UserError(f"a cap or rate has to be above 0, not {load:g}.")
    count = question.requests or max(200, 4 * (question.cap or 0))
    if question.rate_req_s is not None:
        # half a minute: longer than most requests, so that a queue shows
        count = question.requests or max(200, int(30 * question.rate_req_s))
    requests = _requests(question, like, count)
    if question.rate_req_s is not None:
        plan = LoadPlan(
            model="",
            arrival=question.arrival,  # type: ignore[arg-type]
            requests=count,
            rate_req_s=question.rate_req_s,
            burstiness=question.burstiness,
            seed=question.seed,
        )
        offsets = intended_offsets_s(plan)
        assert offsets is not None
        requests = [replace(one, due_s=float(at)) for one, at in zip(requests, offsets, strict=True)]
    server, setup = like.server, like.setup
    if question.kv_dtype is not None:
        new = replace(setup, kv_dtype=None if question.kv_dtype == "auto" else question.kv_dtype)
        smaller = _kv_bytes(setup.architecture, setup.cache_dtype) / _kv_bytes(setup.architecture, new.cache_dtype)
        server, setup = replace(server, num_blocks=int(server.num_blocks * smaller)), new
    changes: Mapping[str, int | bool | None] = {
        "max_num_seqs": question.max_num_seqs,
        "max_batched_tokens": question.max_batched_tokens,
        "chunked": question.chunked,
        "num_blocks": None if question.kv_tokens is None else question.kv_tokens // server.block_tokens,
        "prefix_caching": True if question.prefix_tokens else None,
    }
    server = replace(server, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    longest = max(one.prompt_tokens + one.output_tokens for one in requests)
    if longest > server.num_blocks * server.block_tokens:
        raise UserError(f"a request of {longest} tokens does not fit into the KV pool.")
    if not server.chunked and max(one.prompt_tokens for one in requests) > server.max_batched_tokens:
        raise UserError("without chunked prefill the longest prompt does not fit into a step's tokens.")
    return replace(
        like,
        key="",
        workload="asked",
        batch_cap=question.cap or server.max_num_seqs,
        requests=tuple(requests),
        server=server,
        concurrency=question.cap,
        rate_req_s=question.rate_req_s,
        setup=setup,
        max_model_len=max(like.max_model_len, longest),
        summary={},
    )


def _requests(question: Question, like: Observation, count: int) -> list[Request]:
    stream = np.random.RandomState(question.seed)
    known = [like.requests[place] for place in stream.randint(0, len(like.requests), size=count)]
    prompts, outputs = ([getattr(one, name) for one in known] for name in ("prompt_tokens", "output_tokens"))
    if question.prompt_tokens is not None:
        prompts = _drawn(question.prompt_tokens, count, stream)
    if question.output_tokens is not None:
        outputs = _drawn(question.output_tokens, count, stream)
    shared = question.prefix_tokens or 0
    groups = stream.randint(0, question.prefixes, size=count).tolist() if shared else [None] * count
    return [
        Request(prompt + shared, output, None, group, shared)
        for prompt, output, group in zip(prompts, outputs, groups, strict=True)
    ]


def _drawn(span: Sequence[int], count: int, stream: np.random.RandomState) -> list[int]:
    low, high = span
    if not 1 <= low <= high:
        raise UserError(f"lengths go from 1 token up, the least first, not {low} to {high}.")
    found: list[int] = stream.randint(low, high + 1, size=count).tolist()
    return found


def _kv_bytes(architecture: ModelArchitecture, dtype: str) -> float:
    return architecture.decoder.kv_bytes_per_token(cache_type(dtype))
