"""Faults the mock engine shows on order, parsed from `--fault KIND[:ARG...]`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from memgap.errors import UserError


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; zero or False means "does not happen".

    Counts are numbers of requests ("every Nth"), tokens (`coalesce`) or running sequences (`oom_at_running`);
    times are seconds.
    """

    die_after_requests: int = 0
    hang_on_term: bool = False
    oom_at_running: int = 0
    fail_start: bool = False
    oom_start: bool = False
    slow_start_s: float = 0.0
    stall_after_requests: int = 0
    stall_s: float = 0.0
    http_500_every: int = 0
    break_stream_every: int = 0
    malformed_event_every: int = 0
    coalesce: int = 1
    short_output_every: int = 0
    stalled_metrics_s: float = 0.0
    miscount_tokens: int = 0
    prefix_hit_share: float = 0.0
    lost_count_share: float = 0.0
    delay_writes_s: float = 0.0
    odd_metrics_every: int = 0
    longer_prompts_share: float = 0.0
    surplus_tokens: int = 0
    abort_every: int = 0
    kept_cache_share: float = 0.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the arguments of one fault are called in `Faults` and what type each has."""

    fields: tuple[tuple[str, type[int] | type[float]], ...] = field(default=())
    flag: str = ""


_KINDS: dict[str, _Kind] = {
    "die-after-requests": _Kind((("die_after_requests", int),)),
    "hang-on-term": _Kind(flag="hang_on_term"),
    "oom-at-running": _Kind((("oom_at_running", int),)),
    "fail-start": _Kind(flag="fail_start"),
    "oom-start": _Kind(flag="oom_start"),
    "slow-start": _Kind((("slow_start_s", float),)),
    "stall": _Kind((("stall_after_requests", int), ("stall_s", float))),
    "http-500": _Kind((("http_500_every", int),)),
    "break-stream": _Kind((("break_stream_every", int),)),
    "malformed-event": _Kind((("malformed_event_every", int),)),
    "coalesce": _Kind((("coalesce", int),)),
    "short-output": _Kind((("short_output_every", int),)),
    "stalled-metrics": _Kind((("stalled_metrics_s", float),)),
    "miscount": _Kind((("miscount_tokens", int),)),
    "prefix-hits": _Kind((("prefix_hit_share", float),)),
    "lost-count": _Kind((("lost_count_share", float),)),
    "delay-writes": _Kind((("delay_writes_s", float),)),
    "odd-metrics": _Kind((("odd_metrics_every", int),)),
    "longer-prompts": _Kind((("longer_prompts_share", float),)),
    "surplus-tokens": _Kind((("surplus_tokens", int),)),
    "abort": _Kind((("abort_every", int),)),
    "keep-cache": _Kind((("kept_cache_share", float),)),
}

FAULT_KINDS = tuple(_KINDS)
"""Names that `--fault` knows."""


def parse_faults(texts: Iterable[str]) -> Faults:
    """Return the faults named by `texts`, each `KIND[:ARG...]`.

    Raises UserError for an unknown kind, a missing, surplus or non-positive argument, and a kind given twice.
    """
    values: dict[str, bool | int | float] = {}
    for text in texts:
        name, *arguments = text.split(":")
        kind = _KINDS.get(name)
        if kind is None:
            raise UserError(f"--fault {text}: unknown kind {name!r}; known are {', '.join(FAULT_KINDS)}.")
        if len(arguments) != len(kind.fields):
            need, got = len(kind.fields), len(arguments)
            raise UserError(f"--fault {text}: {name} takes {need} argument(s), got {got}.")
        if kind.flag:
            values[kind.flag] = True
        for (key, convert), argument in zip(kind.fields, arguments, strict=True):
            if key in values:
                raise UserError(f"--fault {text}: {name} is given twice; give it once.")
            try:
                number = convert(argument)
            except ValueError:
                number = 0
            if not 0 < number < 1e9:
                wanted = "a positive whole number" if convert is int else "a positive number"
                raise UserError(f"--fault {text}: {argument!r} is not {wanted}.")
            values[key] = number
    return Faults(**values)  # type: ignore[arg-type]
