"""What theory expects of a measured point: named functions of its row, for claims that say `expected: NAME`.

Each gets the rows of an effect, the first arm's first. A row has the columns of a table of points, and the point's
`record` and `summary`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memgap.engine.held import held_of
from memgap.roofline import limits

Row = Mapping[str, Any]
Rows = Sequence[Row]
SAVED = 0.8
"""Share of the prefill's time that a cached token is expected to save at least."""


class UnknownError(Exception):
    """What is expected cannot be told of a point; the text says why."""


def cached_share(rows: Rows) -> float:
    """Return the share of prompt tokens that a prefix cache can have: the prefix in whole blocks, of all requests but
    the first of each prefix.
    """
    dataset, requests = _shared_prefix(rows[0]), _requests(rows[0])
    block, prefix = _number(rows[0], "kv_block_tokens"), dataset["prefix_tokens"]
    prompt = prefix + _mean(dataset["prompt_tokens"])
    later = max(requests - dataset["prefixes"], 0) / requests
    return float(later * math.floor(prefix / block) * block / prompt)


def ttft_by_cache(rows: Rows) -> float:
    """Return what a cache leaves of the TTFT, as a ratio, where a cached token saves 0.8 of its prefill."""
    return 1.0 - SAVED * cached_share(rows)


def chunked_prefix(rows: Rows) -> float:
    """Return the prompt tokens that hits of whole blocks can be, over all requests of one that repeats its prompts."""
    dataset, block = rows[0]["record"]["dataset"], _number(rows[0], "kv_block_tokens")
    prompt = dataset.get("prefix_tokens", 0) + _mean(dataset.get("prompt_tokens"))
    return float(_requests(rows[0]) * math.floor(prompt / block) * block)


def weight_read_ms(rows: Rows) -> float:
    """Return the time in ms to read the weights that a decode step reads once (`memgap.roofline.limits`)."""
    found = limits.weight_read_ms(rows[0]["record"], rows[0].get("gpu_name"))
    if found is None:
        raise UnknownError("the bandwidth of this machine is not known")
    return found


def useful_fraction(rows: Rows) -> float:
    """Return the share of the tokens made by static batches that were asked for, of the first arm that runs some."""
    for row in rows:
        summary = row["summary"]
        if summary.get("computed_output_tokens"):
            return float(summary["output_tokens"] / summary["computed_output_tokens"])
    raise UnknownError("no arm runs static batches")


def saved_by_seats(rows: Rows) -> float:
    """Return how many times more useful tokens seats make that no finished request keeps: 1 by the useful share."""
    return 1.0 / useful_fraction(rows)


def kv_bytes(rows: Rows) -> float:
    """Return the bytes of the KV pool: its tokens by the bytes of one."""
    per_token = held_of(rows[0]["record"]).kv_bytes_per_token
    if per_token is None:
        raise UnknownError("the bytes of a token are not known")
    return _number(rows[0], "kv_pool_tokens") * per_token


def graph_memory_tokens(rows: Rows) -> float:
    """Return how many tokens of KV cache the memory of the CUDA graphs of any of the rows would hold."""
    per_token = held_of(rows[0]["record"]).kv_bytes_per_token
    found = [float(row["graph_memory_bytes"]) for row in rows if row.get("graph_memory_bytes")]
    if not found or per_token is None:
        raise UnknownError("the engine's log does not tell the memory of its graphs")
    return max(found) / per_token


def shared_prompt_usage(rows: Rows) -> float:
    """Return the share of the KV pool that the samples of requests in flight hold at their end: each request its
    prompt's whole blocks once, each sample the rest of the prompt and its output in blocks of its own.
    """
    record, block = rows[0]["record"], _number(rows[0], "kv_block_tokens")
    prompt, output = (_mean(record["dataset"].get(name)) for name in ("prompt_tokens", "output_tokens"))
    shared = math.floor((prompt - 1) / block)  # the last token of a prompt is always computed, in a block of its own
    own = math.ceil((prompt - shared * block + output) / block)
    blocks = record["batch_cap"] * (shared + record["load"].get("samples", 1) * own)
    return float(blocks * block / _number(rows[0], "kv_pool_tokens"))


FUNCTIONS: Mapping[str, Callable[[Rows], float]] = {
    one.__name__: one
    for one in (
        cached_share,
        ttft_by_cache,
        chunked_prefix,
        weight_read_ms,
        useful_fraction,
        saved_by_seats,
        kv_bytes,
        graph_memory_tokens,
        shared_prompt_usage,
    )
}


def _shared_prefix(row: Row) -> Mapping[str, Any]:
    dataset: Mapping[str, Any] = row["record"]["dataset"]
    if dataset["kind"] != "shared-prefix":
        raise UnknownError(f"a dataset of kind {dataset['kind']} has no prefixes of set length")
    return dataset


def _requests(row: Row) -> float:
    return float(row["record"]["load"]["requests"])


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    if value is None or not math.isfinite(value) or value <= 0:
        raise UnknownError(f"{name} is not known")
    return float(value)


def _mean(length: Any) -> float:
    """Return the mean of a length that is drawn evenly between two, or from several."""
    if isinstance(length, Mapping) and {"min", "max"} <= length.keys():
        drawn = length.get("choices") or (length["min"], length["max"])
        return float(sum(drawn)) / len(drawn)
    if isinstance(length, int | float):
        return float(length)
    raise UnknownError("the dataset's lengths follow no simple rule")
