"""The tables and the figure of a load test from made-up points: intervals, memory on a GPU, what failed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memgap.errors import UserError
from memgap.figures import loadtest
from memgap.figures.files import write_figure
from memgap.kinds.locust.comparison import comparison_table
from memgap.kinds.locust.page import comparison_page
from memgap.kinds.locust.tables import (
    POINT_COLUMNS,
    READ,
    TIMELINE_COLUMNS,
    points_table,
    slice_s,
    timeline_table,
)
from memgap.study.plan import plan_of
from memgap.tables.inputs import Inputs
from memgap.workflow import load_study
from tests.support.loadtests import loadtest_config


def made_up_points(**changes: Any) -> pd.DataFrame:
    """Return three repeats of either client; Locust is 10 ms slower, give or take, and the second server is another."""
    rows = []
    for repeat in range(3):
        for client in ("locust", "memgap"):
            slower_ms = (10.0 + repeat) if client == "locust" else 0.0
            rows.append(
                {
                    "experiment": "2 users",
                    "session": "one",
                    "client": client,
                    "repeat": repeat,
                    "users": 2,
                    "key": f"{client}{repeat}",
                    "status": "ok",
                    "flags": "",
                    "verdict": "valid",
                    "prompts": 1,
                    "server_start": "11",
                    "engine": "vllm",
                    "engine_version": "1",
                    "gpu_name": "TEST GPU",
                    "date_utc": "2026-01-02T03:04:05Z",
                    "source": "measured",
                    "requests_completed": 8,
                    "e2e_mean_ms": 100.0 + repeat * 7 + slower_ms,
                    "server_e2e_mean_ms": 90.0 + repeat * 7,
                }
            )
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS)).assign(**changes)


def made_up_timeline(points: pd.DataFrame) -> pd.DataFrame:
    """Return four slices of every point, with memory on a GPU."""
    rows = [
        {
            **{name: point[name] for name in ("experiment", "session", "key", "client", "repeat")},
            "time_s": float(second),
            "bin_s": 1.0,
            "requests_per_s": 2.0,
            "failures_per_s": 0.5 * second,
            "response_time_mean_ms": 100.0,
            "ttft_mean_ms": 10.0,
            "gpu_mem_used_bytes": 2e10,
            "rss_bytes": 3e9,
            "prefix_hit_fraction": 0.5,
        }
        for _, point in points.iterrows()
        for second in range(4)
    ]
    return pd.DataFrame(rows, columns=list(TIMELINE_COLUMNS))


def test_differences_are_paired_and_tell_when_their_interval_leaves_zero_out() -> None:
    found = comparison_table(made_up_points()).set_index(["group", "metric"])
    slower = found.loc[("by one definition", "end to end, mean, ms")]
    assert slower["difference"] == pytest.approx(11.0) and slower["pairs"] == 3
    assert 0 < slower["difference_low"] < 11.0 < slower["difference_high"] and slower["differs"] == "yes"
    assert found.loc[("by the engine", "end to end, mean, ms")]["differs"] == "no"
    added = found.loc[("added outside the engine", "end to end, mean, ms")]
    assert (added["locust"], added["memgap"]) == (pytest.approx(21.0), pytest.approx(10.0))
    assert found.loc[("by one definition", "TTFT, mean, ms")]["pairs"] == 0


def test_a_failed_point_takes_its_pair_along() -> None:
    points = made_up_points()
    points.loc[0, "status"] = "crash"
    found = comparison_table(points).set_index(["group", "metric"])
    assert found.loc[("same load", "completed requests")]["pairs"] == 2
    page = comparison_page("asking", points, comparison_table(points), pd.DataFrame(columns=["session", "quantity"]))
    assert "6 runs, 1 of them failed, 0 with the verdict invalid" in page


def test_the_figure_draws_a_finished_repeat_names_the_failed_ones_and_shows_the_gpu(tmp_path: Path) -> None:
    points = made_up_points()
    points.loc[0, "status"] = "crash"
    figure, data = loadtest.draw(Inputs({"loadtest.loadtest": points, "loadtest.timeline": made_up_timeline(points)}))
    assert set(data["key"]) == {"locust1", "memgap0"}
    assert "Locust: 1 x crash" in figure.axes[0].get_title()
    assert any("dotted: GPU" in axes.get_ylabel() for axes in figure.axes)
    files = [tmp_path / f"f.{kind}" for kind in ("pdf", "png", "csv")]
    write_figure(figure, data, *files)
    assert len(pd.read_csv(files[2])) == 8


def test_a_load_test_without_any_point_still_has_its_tables_and_figure(tmp_path: Path) -> None:
    plan = plan_of(load_study(loadtest_config()), "group", "asking")
    points, timeline = points_table(plan, tmp_path), timeline_table(plan, tmp_path)
    assert points["status"].tolist() == ["missing", "missing"] and timeline.empty
    for name, table in (("points", points), ("timeline", timeline)):
        table.to_csv(tmp_path / name, index=False)
    figure, data = loadtest.draw(
        Inputs({"loadtest.loadtest": tmp_path / "points", "loadtest.timeline": tmp_path / "timeline"})
    )
    assert data.empty and "Locust: 1 x missing" in figure.axes[0].get_title()
    with pytest.raises(UserError, match="the column time_s is missing"):
        READ["timeline"].read(tmp_path / "points")


def test_slices_are_few_where_requests_are_few() -> None:
    assert slice_s(40.0, 1000) == 1.0
    assert slice_s(40.0, 20) == 5.0
    assert slice_s(0.1, 3) == 0.25
    assert np.isclose(slice_s(1e6, 3), 900.0)
