"""The tables of a lab's arms: against the reference, and what they were set to."""

from pathlib import Path
from typing import Any

import pytest

from memgap.labs.against import against_reference
from memgap.labs.parity import parity
from memgap.labs.points import all_cells
from memgap.store.points import PointStore
from tests.support.labs import lab_plan
from tests.support.records import store_point


def rows(arm: str, faster: float = 1.0, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of an arm in three blocks at one place."""
    made = []
    for block in (1, 2, 3):
        step_ms = (10 + block) * (1 + 0.001 * block * (arm != "slow")) / faster
        made.append(
            {
                "arm": arm,
                "block": block,
                "phase": "",
                "at": {"load.rate_req_s": 4},
                "status": "ok",
                "verdict": "valid",
                "tpot_mean_ms": step_ms,
                "request_throughput_req_s": 9.0,
                "limit": None,
                **changes,
            }
        )
    return made


PLAN = {
    "lab": "l",
    "axes": {"load.rate_req_s": [4]},
    "reference": "slow",
    "arms": {"slow": "Slow", "fast": "Fast"},
    "left_out": {},
}


@pytest.mark.parametrize(("faster", "verdict"), [(1.1, "faster"), (1.0, "equal"), (0.9, "slower")])
def test_an_arm_is_paired_with_the_reference_in_each_block(faster: float, verdict: str) -> None:
    table = against_reference(PLAN, rows("slow") + rows("fast", faster))
    said = table.set_index("metric")
    assert said.loc["tpot_mean_ms", "verdict"] == verdict
    assert said.loc["tpot_mean_ms", "ratio"] == pytest.approx(faster, rel=0.01)
    assert said.loc["request_throughput_req_s", "verdict"] == "equal"
    assert set(said["at"]) == {"rate_req_s 4"}


def test_a_throughput_that_was_offered_is_none_and_a_refused_flag_is_a_row() -> None:
    offered = against_reference(PLAN, rows("slow") + rows("fast", limit="offered-load"))
    assert list(offered["metric"]) == ["tpot_mean_ms"]
    refused = rows("fast", status="bad_config", error_message="no such flag", tpot_mean_ms=None)
    (row,) = against_reference(PLAN, rows("slow") + refused).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("refused", "fast: bad_config: no such flag")
    absent = against_reference({**PLAN, "left_out": {"fast": "it is not installed"}}, rows("slow"))
    assert list(absent["reason"]) == ["it is not installed"]


def test_settings_are_those_of_the_running_servers(tmp_path: Path) -> None:
    plan = lab_plan()
    for cell in all_cells(plan, PointStore(tmp_path)):
        caches = {"enable_prefix_caching": "True" if cell.arm == "slow" else "False", "block_size": 16}
        engine = {"version": "1", "kv_pool_tokens": 4000, "resolved": {"cache_config": caches}}
        store_point(tmp_path, cell.point.record, {}, engine=engine)
    table = parity(plan, PointStore(tmp_path)).set_index("setting")
    assert list(table.columns) == ["slow", "fast", "equal"]
    assert list(table.loc["prefix cache"]) == ["on", "off", "no"]
    assert list(table.loc["seats"]) == ["4", "4", "yes"]
    assert list(table.loc["KV cache, tokens"]) == ["4000", "4000", "yes"]
