"""What an engine's adapter can do here, and the sentence that says so where a configuration wants more."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from memgap.errors import UserError

DESCRIPTIONS: Mapping[str, str] = {
    "serves": "runs as a server that takes requests over HTTP",
    "static_batches": "runs static batches in a worker process",
    "in_process": "runs inside the worker of an offline study",
    "shares_memory": "has a flag for its share of a GPU's memory, which replicas and MPS need",
    "needs_free_share": "starts only where its whole share of the GPU's memory is free",
    "sizes_kv_cache": "has a flag for the size of its KV cache",
    "resets_prefix_cache": "empties its prefix cache on request",
    "profiles": "starts and stops torch.profiler on request",
    "detokenizes": "turns token ids into text on request, which chat prompts for real weights need",
    "reports_kv_usage": "reports how much of its KV cache is in use",
    "reports_settings": "reports its effective settings",
    "has_histograms": "has latency histograms of its own",
    "is_advised": "takes the advisor's flags as they are written",
}
"""Each capability as the end of "an engine that ..."."""


@dataclass(frozen=True)
class Capabilities:
    """What an adapter can do, one field for each of `DESCRIPTIONS`; nothing unless it says so.

    `measured`: the versions of the real engine that points were measured on with it; empty where only its parts were
    tested.
    """

    serves: bool = False
    static_batches: bool = False
    in_process: bool = False
    shares_memory: bool = False
    needs_free_share: bool = False
    sizes_kv_cache: bool = False
    resets_prefix_cache: bool = False
    profiles: bool = False
    detokenizes: bool = False
    reports_kv_usage: bool = False
    reports_settings: bool = False
    has_histograms: bool = False
    is_advised: bool = False
    measured: str = ""


def can(capabilities: Capabilities, name: str) -> bool:
    """Whether an engine has the capability of that name; raises KeyError for one that does not exist."""
    if name not in {one.name for one in fields(Capabilities)}:
        raise KeyError(name)
    return bool(getattr(capabilities, name))


def require(engine: str, table: Mapping[str, Capabilities], adapter: str, name: str, wanted: str, where: str) -> None:
    """Raise UserError unless the adapter of an engine has a capability.

    `engine` is the configuration's name of it, `table` the capabilities by adapter, `wanted` what asks for it, such as
    "`replicas`", `where` the place in the configuration.
    """
    if can(table[adapter], name):
        return
    able = sorted(one for one, capabilities in table.items() if can(capabilities, name))
    raise UserError(
        f"{where}: {wanted} needs an engine that {DESCRIPTIONS[name]}; engine {engine!r} (adapter {adapter}) does not, "
        f"the adapter{'s' * (len(able) != 1)} {', '.join(able) or 'of none'} would."
    )
