"""Columns that follow from what a point keeps: hits, tails, waste, memory of graphs, phases of the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.engine.prometheus import parse_page
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import VllmAdapter, graphs_in_log
from memgap.store.points import csv_gz
from memgap.tables.derived import hit_fraction
from memgap.tables.enough import percentile
from memgap.tables.points import collect
from memgap.tables.starts import START_COLUMNS
from tests.support.records import small_study, store_point
from tests.support.sessions import run_session

SUMMARY = {"output_tokens": 1100.0, "requests_completed": 10.0, "itl_median_ms": 8.0, "itl_p99_ms": 20.0}


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({}, None),
        ({"prefix_cache_queries": 0.0, "prefix_cache_hits": 0.0}, None),
        ({"prefix_cache_queries": 400.0, "prefix_cache_hits": 100.0}, 0.25),
        ({"prefix_cache_queries": 400.0}, None),
        (
            {
                "prefix_cache_queries": 40000.0,
                "prefix_cache_hits": 0.0,
                "prompt_tokens_computed": 100.0,
                "prompt_tokens_local_hits": 20.0,
                "prompt_tokens_external_hits": 280.0,
            },
            0.75,
        ),
        ({"prefix_cache_queries": 0.0, "prefix_cache_hits": 0.0, "prompt_tokens_computed": 9.0}, None),
    ],
    ids=["nothing", "off", "local", "half", "connector", "off with sources"],
)
def test_hits_are_those_of_any_tier_and_of_nothing_where_none_looked(
    summary: Mapping[str, float], expected: float | None
) -> None:
    assert hit_fraction(summary) == expected


def test_tokens_are_told_by_where_their_cache_came_from() -> None:
    labels = 'engine="%d",model_name="m",source="%s"'
    rows = [(0, "local_compute", 5), (1, "local_compute", 7), (0, "external_kv_transfer", 3)]
    text = "".join(f"vllm:prompt_tokens_by_source_total{{{labels % (e, s)}}} {v}\n" for e, s, v in rows)
    found = VllmAdapter().metrics_sample(parse_page(text))
    assert found == {"prompt_tokens_computed": 12.0, "prompt_tokens_external_hits": 3.0}


def test_a_percentile_needs_ten_values_beyond_it() -> None:
    assert percentile(pd.Series(range(999)), 99) is None
    assert percentile(pd.Series(range(1001)), 99) == 990
    assert (percentile(pd.Series(range(19)), 50), percentile(pd.Series(range(21)), 50)) == (None, 10)


def test_the_memory_of_graphs_is_that_of_all_ranks() -> None:
    capture = "(%s pid=%d) INFO 06-07 08:56:50 [m.py:1] Graph capturing finished in 7 secs, took 0.70 GiB\n"
    pool = "(%s pid=%d) INFO [w.py:1] CUDA graph pool memory: 0.50 GiB (actual), 0.79 GiB (estimated), difference: 0\n"
    assert graphs_in_log("INFO nothing", Sizes()) is None
    assert graphs_in_log(capture % ("EngineCore", 1), Sizes()) == round(0.7 * 2**30)
    one = capture % ("Worker_TP0", 1) + pool % ("Worker_TP0", 1)
    assert graphs_in_log(one, Sizes(tensor=2)) == graphs_in_log(one + pool % ("Worker_TP1", 2), Sizes(2)) == 2**30


def row_of(folder: Path, requests: list[dict[str, Any]], **load: Any) -> pd.Series:
    study = small_study(batch_cap=2, load={"requests": 6, "warmup_requests": 1, **load})
    (point,) = study.points.values()
    engine = {"kv_block_tokens": 16, "num_gpu_blocks": 7, "graph_memory_bytes": 9, "start_phases_s": {"weights": 2.5}}
    key = store_point(folder / "points", point.record, SUMMARY, engine=engine)
    columns = ["status", "prompt_tokens_asked", "prompt_tokens_server", "output_tokens_server", "output_tokens_seen"]
    (folder / "points" / key / "requests.csv.gz").write_bytes(csv_gz(requests, columns))
    return collect(study.group_plan("small"), folder / "points").iloc[0]


def request(prompt: int, output: int, status: str = "ok") -> dict[str, Any]:
    return {"status": status, "prompt_tokens_asked": prompt, "output_tokens_server": output}


def test_a_points_columns(tmp_path: Path) -> None:
    row = row_of(tmp_path / "one", [request(16, 3), request(500, 9, "timeout")])
    assert row["kv_waste_fraction"] == pytest.approx(1 - (16 + 17 + 18) / (16 + 32 + 32))
    assert (row["itl_p99_over_p50"], row["num_gpu_blocks"], row["graph_memory_bytes"]) == (2.5, 7, 9)
    assert row["start_weights_s"] == 2.5 and pd.isna(row["start_process_s"])
    several = row_of(tmp_path / "several", [request(16, 3)], samples=2, temperature=1)
    assert pd.isna(several["kv_waste_fraction"])


def test_phases_of_a_start_are_columns_and_last_as_long_as_it(tmp_path: Path) -> None:
    study = small_study(batch_cap=2)
    point = run_session(study, tmp_path)
    phases = point["engine"]["start_phases_s"]
    assert list(phases) == ["process", "ready"]
    assert sum(phases.values()) == pytest.approx(point["engine"]["start_s"], rel=0.2)
    (row,) = collect(study.group_plan("small"), tmp_path / "results/points").to_dict("records")
    assert row["start_ready_s"] == phases["ready"] and pd.isna(row["start_weights_s"])
    assert set(START_COLUMNS) <= set(row)
