"""Our scheduler on the requests that vLLM's own was run on."""

import gzip
import json
from collections import deque
from pathlib import Path
from typing import Any

from memgap.scheduling.scheduler import Scheduler, Sequence

RECORDED = Path(__file__).parents[1] / "unit/data/vllm_scheduler.json.gz"
"""{"version", "cases", "steps"}: what tests/support/real_scheduler.py wrote with vLLM's scheduler of that version."""


def recorded() -> dict[str, Any]:
    with gzip.open(RECORDED, "rt") as file:
        found: dict[str, Any] = json.load(file)
    return found


def decisions(case: dict[str, Any]) -> tuple[list[dict[str, int]], Scheduler]:
    """Return for each step how many tokens of each request it computes, and the scheduler as it ends."""
    scheduler = Scheduler(
        max_num_seqs=case["max_num_seqs"],
        num_blocks=case["num_blocks"],
        block_size=16,
        max_batched_tokens=case["max_batched_tokens"],
    )
    requests = case["requests"]
    due = deque(sorted(range(len(requests)), key=lambda number: requests[number][2]))
    found: list[dict[str, int]] = []
    begun = step = 0
    while due or scheduler.waiting or scheduler.seats_taken or begun:
        while due and requests[due[0]][2] <= step:
            number = due.popleft()
            scheduler.add(Sequence(*requests[number][:2], number=number))
        decoding = {one.number for one in scheduler.decoding()}
        batch = scheduler.begin_step()
        if batch is not None:
            decoding -= {one.number for one in scheduler.evicted}
            prompts = {str(one.number): tokens for one, _, tokens in batch.chunks}
            found.append({str(number): 1 for number in decoding} | prompts)
            begun += 1
        if begun > case["asynchronous"] or (batch is None and begun):
            scheduler.finish_step()
            begun -= 1
        step += 1
        assert step < 100_000, "the scheduler does not come to an end"
    return found, scheduler
