"""Columns of tables in plain words with their unit, for axes of figures."""

QUANTITIES = {
    "ttft": "time to first token",
    "itl": "gap between tokens",
    "itl_chunk": "gap between chunks",
    "tpot": "time per output token",
    "e2e": "end-to-end latency",
    "kv": "KV",
    "gpu": "GPU",
    "hit": "cache hits",
    "mem": "memory",
    "mbu": "bandwidth used (MBU)",
    "mfu": "FLOP/s used (MFU)",
    "reqs": "requests",
    "util": "utilisation",
    "num": "number of",
}
STATISTICS = {
    "mean": "mean",
    "median": "median",
    "std": "standard deviation",
    "max": "largest",
    "p50": "median",
    **{f"p{q}": f"{q}th percentile" for q in (90, 95, 99)},
    "p999": "99.9th percentile",
}
UNITS = (
    ("_tok_s", "tokens/s"),
    ("_req_s", "requests/s"),
    ("_ms", "ms"),
    ("_s", "s"),
    ("_bytes", "bytes"),
    ("_mhz", "MHz"),
    ("_w", "W"),
    ("_j", "J"),
    ("_fraction", "share"),
    ("_tokens", "tokens"),
    ("_reqs", "requests"),
)


def unit_of(column: str) -> str:
    """Return the unit that a column's name ends with, "" without one."""
    name = column.partition(".")[0]
    return next((unit for end, unit in UNITS if name.endswith(end)), "")


def unit_label(column: str) -> str:
    """Return what stands at an axis of several quantities of one unit, such as "Time (ms)"."""
    unit = unit_of(column)
    return f"Time ({unit})" if unit in ("s", "ms") else unit.capitalize()


def words_of(column: str) -> str:
    """Return a column in words without its unit, such as "time to first token, mean, short requests"."""
    name, _, group = column.partition(".")
    for end, _ in UNITS:
        if name.endswith(end) and name != end.strip("_"):
            name = name.removesuffix(end)
            break
    parts = name.split("_")
    statistics = [STATISTICS[parts.pop()]] if len(parts) > 1 and parts[-1] in STATISTICS else []
    said = " ".join(QUANTITIES.get(part, part) for part in parts)
    return ", ".join([said, *statistics, *([f"{group} requests"] if group else [])])


def axis_label(column: str, unit: str | None = None) -> str:
    """Return what stands at an axis, such as "Time to first token, mean (ms)"; `unit` in place of the column's."""
    said, unit = words_of(column), unit_of(column) if unit is None else unit
    return said[:1].upper() + said[1:] + (f" ({unit})" if unit else "")
