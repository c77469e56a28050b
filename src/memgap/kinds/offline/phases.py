"""Prefill first, then decode: what a step was, by the scheduler's own output, and how decodes wait for all prefills.

vLLM's V1 scheduler mixes both phases: a request decodes as soon as its own prompt is done. To keep them apart, requests
whose prompt is computed are kept from the scheduler until every request's is.
"""

from collections.abc import Callable
from typing import Any

PREFILL, DECODE = "prefill", "decode"


class KvExhaustedError(Exception):
    """The batch does not fit into the KV cache, so that it cannot run as one."""


def prefill_tokens(output: Any) -> int:
    """Return how many tokens of prompts a vLLM SchedulerOutput schedules.

    A new request starts with its prompt; a cached one is in its prompt while it has produced no token.
    """
    scheduled: dict[str, int] = output.num_scheduled_tokens
    new = {one.req_id for one in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    unfinished = {
        name for name, produced in zip(cached.req_ids, cached.num_output_tokens, strict=True) if produced == 0
    }
    return sum(number for name, number in scheduled.items() if name in new or name in unfinished)


def phase_of(output: Any) -> str:
    """Return "prefill" where a SchedulerOutput computes any part of a prompt, else "decode"."""
    return PREFILL if prefill_tokens(output) else DECODE


class DecodeHold:
    """Wraps one scheduler's `schedule` so that requests decode only when all prompts are computed.

    Raises KvExhaustedError out of `schedule` where a prompt waits and nothing can be scheduled for it, and in decode
    where the scheduler preempted a request.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._schedule: Callable[..., Any] = scheduler.schedule
        self._stalled = 0
        self.enabled = True
        scheduler.schedule = self._held_schedule

    def _held_schedule(self, *args: Any, **named: Any) -> Any:
        scheduler = self._scheduler
        if not self.enabled:
            return self._schedule(*args, **named)
        running = list(scheduler.running)
        computing = [one for one in running if one.num_computed_tokens < one.num_prompt_tokens]
        if not computing and not len(scheduler.waiting):
            return self._checked(self._schedule(*args, **named))
        scheduler.running = computing
        try:
            output = self._schedule(*args, **named)
        finally:
            known = set(map(id, computing))
            scheduler.running = [one for one in running if id(one) not in known] + scheduler.running
        # with asynchronous scheduling a step in flight may leave nothing to do once
        self._stalled = 0 if output.total_num_scheduled_tokens else self._stalled + 1
        if self._stalled > 2:
            fitting = len(scheduler.running)
            raise KvExhaustedError(
                f"the KV cache holds the prompts of {fitting} of {fitting + len(scheduler.waiting)} requests"
            )
        return output

    def _checked(self, output: Any) -> Any:
        if len(self._scheduler.waiting):
            raise KvExhaustedError(
                f"the KV cache was full in decode: {len(self._scheduler.waiting)} of "
                f"{len(self._scheduler.waiting) + len(self._scheduler.running)} requests were preempted"
            )
        return output
