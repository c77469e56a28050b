"""What becomes of a point after it was measured: does its number count?"""

import pandas as pd

from memgap.store.points import SPARED

GOOD, PREEMPTED, INVALID, FAILED, UNNEEDED = "good", "preempted", "invalid", "failed", "unneeded"
DRAWN = (GOOD, PREEMPTED)


def replicated(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each row whether several servers shared its load."""
    return (table["replicas"] > 1).fillna(False).astype(bool)


def fate(table: pd.DataFrame) -> "pd.Series[str]":
    """Return for each row "good", "preempted" (measured, but requests were evicted from the KV cache), "invalid" (its
    verdict says that the numbers cannot be believed), "unneeded" (spared by a stop rule) or "failed".
    """
    preempted = table["flags"].fillna("").str.contains("preempted").astype(bool)
    ok = (table["status"] == "ok").fillna(False).astype(bool)
    fates = pd.Series(FAILED, index=table.index)
    fates[ok & preempted] = PREEMPTED
    fates[ok & ~preempted] = GOOD
    fates[(table["status"] == SPARED).fillna(False).astype(bool)] = UNNEEDED
    fates[ok & (table["verdict"] == INVALID).fillna(False).astype(bool)] = INVALID
    return fates
