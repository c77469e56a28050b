"""What engines tell of speculative decoding: drafts, their tokens, and how many of these were accepted.

Sources: vLLM's counters `spec_decode_*`, one of them by position in the draft; SGLang's gauges, which are averages of
its own over the last steps.
"""

from collections import defaultdict
from collections.abc import Mapping

from memgap.engine.prometheus import Page, largest, rise

_COUNTERS: Mapping[str, str] = {
    "spec_drafts": "vllm:spec_decode_num_drafts",
    "spec_draft_tokens": "vllm:spec_decode_num_draft_tokens",
    "spec_accepted_tokens": "vllm:spec_decode_num_accepted_tokens",
}
_BY_POSITION = ("vllm:spec_decode_num_accepted_tokens_per_pos", "vllm:spec_decode_num_accepted_tokens_per_pos_total")
_GAUGES: Mapping[str, str] = {
    "spec_length_mean": "sglang:spec_accept_length",
    "spec_accepted_fraction": "sglang:spec_accept_rate",
}


def speculation_summary(before: Page, after: Page) -> dict[str, float]:
    """Return what was drafted and accepted between two metrics pages; empty where nothing was.

    `spec_drafts`, `spec_draft_tokens` and `spec_accepted_tokens` are numbers; `spec_accepted_fraction` is accepted by
    drafted tokens, `spec_length_mean` the tokens that a verified step gives, its own one included, and
    `spec_accepted_at_N_fraction` the share of drafts whose token N, from 0, was accepted.
    """
    found = {name: change for name, metric in _COUNTERS.items() if (change := rise(before, after, metric)) is not None}
    drafts, drafted = found.get("spec_drafts", 0.0), found.get("spec_draft_tokens", 0.0)
    if not drafts or not drafted:
        gauges = {name: largest(after, metric) for name, metric in _GAUGES.items()}
        return {name: value for name, value in gauges.items() if value is not None and value > 0}
    if "spec_accepted_tokens" in found:
        found["spec_accepted_fraction"] = found["spec_accepted_tokens"] / drafted
        found["spec_length_mean"] = 1 + found["spec_accepted_tokens"] / drafts
    was, now = (_by_position(page) for page in (before, after))
    for position, accepted in sorted(now.items()):
        found[f"spec_accepted_at_{position}_fraction"] = (accepted - was.get(position, 0.0)) / drafts
    return found


def _by_position(page: Page) -> dict[int, float]:
    sums: dict[int, float] = defaultdict(float)
    for name in _BY_POSITION:
        for labels, value in page.get(name, []):
            if labels.get("position", "").isdigit():
                sums[int(labels["position"])] += value
    return sums
