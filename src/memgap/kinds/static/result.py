"""What a worker's batches are as requests, tokens and sums, in the form that served points have."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from memgap.datasets.build import Prompt
from memgap.load.records import ClientHealth, LoadResult, RequestResult, TokenEvents

STEP_COLUMNS = ("batch", "step", "time_s", "kv_slots", "kv_bytes", "allocated_bytes", "reserved_bytes")
BATCH_COLUMNS = (
    *("batch", "requests", "padded_prompt_tokens", "prompt_tokens", "generated_tokens", "output_tokens"),
    *("start_s", "end_s", "allocated_peak_bytes", "reserved_peak_bytes"),
)
NO_CLIENT = ClientHealth(0.0, 0.0, 0.0, None, None, 0, 0, 0, 0.0, "none")
"""There is no client whose clock could be late."""

Outcome = Mapping[str, Any]


def batches(outcome: Outcome, prompts: Sequence[Prompt], size: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield each finished batch of a worker's outcome with the index of its first request."""
    yield from ((batch, number * size) for number, batch in enumerate(outcome["batches"]))


def load_result(outcome: Outcome, prompts: Sequence[Prompt], size: int) -> LoadResult:
    """Return the requests and tokens of a point, as a client would have seen them.

    A request is sent with its batch and answered with it: `last_token_s` and `end_s` are the batch's end, as `generate`
    gives nothing back before. `first_token_s` and the token events are when the tokens were made.
    """
    zero_s = float(outcome["start_monotonic_s"])
    results = [
        RequestResult(index, 0, prompt_tokens_asked=len(one.token_ids), output_tokens_asked=one.output_tokens)
        for index, one in enumerate(prompts)
    ]
    events: list[tuple[int, float]] = []
    for batch, first in batches(outcome, prompts, size):
        times_s = [step["time_s"] - zero_s for step in batch["steps"]]
        for one in results[first : first + size]:
            made = min(one.output_tokens_asked, len(times_s), int(batch["generated_tokens"]))
            one.sent_s, one.end_s = batch["start_monotonic_s"] - zero_s, batch["end_monotonic_s"] - zero_s
            one.first_token_s, one.last_token_s = (times_s[0], one.end_s) if made else (None, None)
            one.output_tokens_seen = made
            one.status = "ok" if made == one.output_tokens_asked else "short"
            events += [(one.index, moment) for moment in times_s[:made]]
    return LoadResult(
        results=results,
        events=TokenEvents(
            np.array([index for index, _ in events], dtype=np.int32),
            np.array([moment for _, moment in events], dtype=np.float64),
            np.ones(len(events), dtype=np.int32),
        ),
        warmup=[],
        start_unix_s=float(outcome["start_unix_s"]),
        start_monotonic_s=zero_s,
        duration_s=float(outcome["end_monotonic_s"]) - zero_s,
        token_source="token_ids",
        health=NO_CLIENT,
    )


def worked(outcome: Outcome, prompts: Sequence[Prompt], size: int) -> dict[str, float]:
    """Return what the batches took beside the useful tokens: padding, tokens past a request's end, memory's peaks.

    `mean_running_reqs` is the mean over time of the requests that were not at their own end yet.
    """
    rows = batch_rows(outcome, prompts, size)
    found = {
        "batches": float(len(rows)),
        "padded_prompt_tokens": float(sum(row["requests"] * row["padded_prompt_tokens"] for row in rows)),
        "computed_output_tokens": float(sum(row["requests"] * row["generated_tokens"] for row in rows)),
        "max_running_reqs": float(max(row["requests"] for row in rows)),
    }
    busy_s = total_s = 0.0
    for batch, first in batches(outcome, prompts, size):
        edges_s = [batch["start_monotonic_s"], *(step["time_s"] for step in batch["steps"])]
        lengths = [one.output_tokens for one in prompts[first : first + size]]
        for step, (begin_s, end_s) in enumerate(pairwise(edges_s)):
            busy_s += (end_s - begin_s) * sum(length > step for length in lengths)
        total_s += batch["end_monotonic_s"] - batch["start_monotonic_s"]
    found["mean_running_reqs"] = busy_s / total_s if total_s else 0.0
    for name in ("allocated_peak_bytes", "reserved_peak_bytes"):
        if peaks := [row[name] for row in rows if row[name] is not None]:
            found[name] = float(max(peaks))
    return found


def batch_rows(outcome: Outcome, prompts: Sequence[Prompt], size: int) -> list[dict[str, Any]]:
    """Return one row a batch (`BATCH_COLUMNS`), times from the window's start."""
    zero_s = float(outcome["start_monotonic_s"])
    rows = []
    for number, (batch, first) in enumerate(batches(outcome, prompts, size)):
        own = prompts[first : first + size]
        rows.append(
            {
                "batch": number,
                "requests": len(own),
                "prompt_tokens": sum(len(one.token_ids) for one in own),
                "output_tokens": sum(one.output_tokens for one in own),
                "start_s": batch["start_monotonic_s"] - zero_s,
                "end_s": batch["end_monotonic_s"] - zero_s,
                **{name: batch[name] for name in ("padded_prompt_tokens", "generated_tokens")},
                **{name: batch.get(name) for name in ("allocated_peak_bytes", "reserved_peak_bytes")},
            }
        )
    return rows


def step_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one row a step of every batch (`STEP_COLUMNS`), times from the window's start."""
    zero_s = float(outcome["start_monotonic_s"])
    return [
        {**step, "batch": number, "step": index, "time_s": step["time_s"] - zero_s}
        for number, batch in enumerate(outcome["batches"])
        for index, step in enumerate(batch["steps"])
    ]
