"""Groups of servers, one row a point and member: what each did of the load, and the KV caches that it fetched."""

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.engine.disaggregation import PREFILL
from memgap.tables.columns import Columns
from memgap.tables.entries import Entry, entries
from memgap.tables.inputs import Inputs

NAMED = ("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "repeat", "status", "verdict")
TEXT = (*NAMED[:7], *NAMED[8:], "source", "router", "member", "role")
METRICS = (
    *("server_prompt_tokens", "server_output_tokens", "preemptions", "prefix_cache_queries", "prefix_cache_hits"),
    *(f"server_{one}_mean_ms" for one in ("ttft", "itl", "e2e", "queue", "prefill", "decode")),
    *("kv_transfers", "kv_transfers_failed", "kv_transfer_bytes", "kv_transfer_mean_ms", "kv_transfer_bytes_s"),
)
COLUMNS = (*TEXT, "repeat", "start_s", "output_share_of_mean", *METRICS)
TABLE = TableSpec(
    name="members",
    title="Members of groups of servers",
    of="sweep",
    plan="group",
    writes={"members": "results/tables/{group}.members.csv"},
)
READ = {"members": Columns("a table of members", COLUMNS, text=TEXT, numbers=True)}


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return the table of the inputs' plan. `output_share_of_mean` is a member's output tokens by the mean of those
    that answer: 1 where a router spreads them evenly.
    """
    rows = [
        {"sweep": inputs.plan["sweep"], **row} for entry in entries(inputs.plan, inputs.points) for row in _rows(entry)
    ]
    return {"members": pd.DataFrame(rows, columns=list(COLUMNS))}


def _rows(entry: Entry) -> list[dict[str, object]]:
    did = (entry.point or {}).get("members", {})
    if entry.point is None or not did:
        return []
    told, named = entry.point["engine"]["members"], {**entry.declared, **entry.outcome}
    answered = [one.get("server_output_tokens", 0) for name, one in did.items() if told[name]["role"] != PREFILL]
    mean = sum(answered) / len(answered)
    rows = []
    for name, one in did.items():
        answers = mean > 0 and told[name]["role"] != PREFILL
        rows.append(
            {
                **{column: named.get(column) for column in (*NAMED, "source")},
                "router": entry.point["engine"]["router"],
                "member": name,
                "role": told[name]["role"],
                "start_s": told[name]["start_s"],
                "output_share_of_mean": one.get("server_output_tokens", 0) / mean if answers else None,
                **{column: one.get(column) for column in METRICS},
            }
        )
    return rows
