"""The table of what a lab's arms were set to, as their running servers say: what was equal, and what could not be."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.engine.given import GivenFlags
from memgap.labs.points import all_cells
from memgap.store.points import PointStore
from memgap.tables.forms import Content
from memgap.tables.inputs import Inputs

SETTINGS: Mapping[str, str] = {
    "max_seqs": "seats",
    "max_batched_tokens": "tokens of a step",
    "max_model_len": "greatest length, tokens",
    "block_tokens": "tokens of a block",
    "memory_fraction": "share of memory",
    "kv_dtype": "KV cache type",
    "prefix_caching": "prefix cache",
    "graphs": "greatest decode graph",
    "eager": "without graphs",
    "async_scheduling": "asynchronous scheduling",
    "tensor_parallel": "GPUs",
    "api_servers": "API servers",
    "attention": "attention",
}
TABLE = TableSpec(
    name="lab_parity",
    title="Settings of the arms",
    of="lab",
    plan="lab",
    writes={"parity": "results/labs/{group}.parity.csv"},
    wanted=("parity",),
    shown=("parity",),
    category="Labs",
    caption="""
What each arm of lab {group} was set to: as its running server says, else as it was given. Where arms are not equal,
they could not be made so or are meant to differ.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table of the inputs' plan."""
    return {"parity": parity(inputs.plan, PointStore(inputs.points))}


def parity(plan: Mapping[str, Any], store: PointStore) -> pd.DataFrame:
    """Return one row a setting with a column for each arm, empty where it says nothing, and whether those agree."""
    found: dict[str, dict[str, str]] = {}
    for cell in all_cells(plan, store):
        if cell.arm not in found and store.status(cell.point.key) == "ok":
            found[cell.arm] = _settings(store.read(cell.point.key) or {})
    arms = [arm for arm in plan["arms"] if arm in found]
    rows = []
    for name in dict.fromkeys(name for own in found.values() for name in own):
        values = {arm: found[arm].get(name, "") for arm in arms}
        said = {one for one in values.values() if one}
        rows.append({"setting": name, **values, "equal": "yes" if len(said) == 1 and all(values.values()) else "no"})
    return pd.DataFrame(rows, columns=["setting", *arms, "equal"])


def _settings(point: Mapping[str, Any]) -> dict[str, str]:
    record, engine = point["record"], point["engine"]
    given, resolved = GivenFlags.of(record), engine.get("resolved") or {}
    found = {"engine": f"{record['engine']['package']} {engine.get('version') or record['engine']['version']}"}
    found["weights and activations"] = record["model"]["dtype"]
    for meaning, words in SETTINGS.items():
        place = given.names.told.get(meaning)
        told = (resolved.get(place[0]) or {}).get(place[1]) if place is not None else None
        if told is None and hasattr(given.names, meaning):
            told = given.get(meaning)
        if told is not None:
            found[words] = _text(told, inverted=meaning in given.names.told_inverted)
    for name, words in (("kv_pool_tokens", "KV cache, tokens"), ("max_model_len", SETTINGS["max_model_len"])):
        if engine.get(name) is not None:
            found[words] = f"{engine[name]:g}" if name != "kv_pool_tokens" else str(engine[name])
    return found


def _text(value: Any, inverted: bool = False) -> str:
    if isinstance(value, bool) or value in ("True", "False"):
        return "on" if (str(value) == "True") != inverted else "off"
    return str(value)
