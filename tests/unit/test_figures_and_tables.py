"""Tables hold every point, figures show every point or say which they do not, and equal data give equal files."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from memgap.advisor.report import advice_for
from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.figures.files import write_figure
from memgap.figures.points import failure_note, per_cap
from memgap.tables.documents import read_advice
from memgap.tables.forms import write_table
from memgap.tables.kernels import kernels_table
from memgap.tables.points import COLUMNS, as_table, collect, read_table
from memgap.tables.provenance import provenance_line
from tests.support.drawing import draw, of_sweep, reading
from tests.support.figures import texts
from tests.support.records import small_config, small_study, store_point

OF_POINTS = sorted(set(reading("sweep.points")) - {"roofline"})
"""The roofline needs predictions and has tests of its own."""
OF_SERIES = ["itl_series", "occupancy"]
"""They draw what points keep beside their numbers."""
OF_RATES = sorted(set(OF_POINTS) - {"fig13", "attainment", "lengths", "tails", "waterfall", "versions"})
"""Figure 13 draws timelines of profiled points, whose rates do not count; the others need further tables."""
WITH_BARS = ["fig02", "fig03", "fig10", "fig12"]
SCRIPTS = Path(__file__).resolve().parents[2] / "workflow/scripts"


def summary(cap: int) -> dict[str, float]:
    """Return a made-up measurement."""
    return {
        "total_throughput_tok_s": 100.0 * cap**0.7,
        "output_throughput_tok_s": 50.0 * cap**0.7,
        "itl_mean_ms": 5.0 + cap,
        "mean_running_reqs": 0.95 * cap,
        "kv_cache_usage_max_fraction": 0.05 * cap,
        "duration_s": 3.0,
        "output_tokens": 800.0,
        "requests_completed": 10.0,
    }


@pytest.fixture
def plan() -> dict[str, Any]:
    """Return the plan of a sweep with caps 1 to 8."""
    return small_study(batch_cap=[1, 2, 4, 8]).group_plan("small")


@pytest.fixture
def table(tmp_path: Path, plan: dict[str, Any]) -> pd.DataFrame:
    """Return a table with two good points, one preempted, one out of memory."""
    for point, fate in zip(plan["points"], ("ok", "ok", "preempted", "oom"), strict=True):
        cap = point["record"]["batch_cap"]
        if fate == "oom":
            store_point(tmp_path / "points", point["record"], None, status="oom")
        else:
            flags = [fate] if fate == "preempted" else []
            store_point(tmp_path / "points", point["record"], summary(cap), flags=flags)
    return collect(plan, tmp_path / "points")


def test_a_table_has_a_row_for_every_point(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(COLUMNS)
    assert list(table["batch_cap"]) == [1, 2, 4, 8]
    assert list(table["status"]) == ["ok", "ok", "ok", "oom"]
    assert table["error_message"].iloc[3] == "it was oom"
    assert table["total_throughput_tok_s"].iloc[0] == 100.0
    assert table["kv_bytes_per_token"].iloc[0] == 8192
    assert table["gpu_name"].iloc[0] == "TEST GPU"


def test_missing_and_garbled_points_are_rows(tmp_path: Path, plan: dict[str, Any]) -> None:
    key = store_point(tmp_path, plan["points"][0]["record"], summary(1))
    (tmp_path / key / "point.json").write_text("{")
    table = collect(plan, tmp_path)
    assert list(table["status"]) == ["garbled", "missing", "missing", "missing"]
    assert f"is damaged; with `remeasure: [{key}]` in the configuration" in table["error_message"].iloc[0]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_is_read_back(tmp_path: Path, table: pd.DataFrame, kind: str) -> None:
    write_table(table, tmp_path / "t.parquet", tmp_path / "t.csv")
    again = read_table(tmp_path / f"t.{kind}")
    pd.testing.assert_frame_equal(again.fillna({"flags": ""}), table.fillna({"flags": ""}), rtol=1e-8)


def test_empty_and_wrong_tables(tmp_path: Path) -> None:
    write_table(as_table([]), tmp_path / "t.parquet", tmp_path / "t.csv")
    assert read_table(tmp_path / "t.parquet").empty
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of points, the column sweep is missing"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(UserError, match="not a sweep plan"):
        collect({}, tmp_path)


def advice() -> dict[str, Any]:
    """Return an advice with B_opt 2."""
    candidates = [
        {"batch_cap": cap, "throughput_tok_s": 100.0 * cap**0.7, "latency_ms": 5.0 + cap, "gain_ratio": cap**-0.3}
        for cap in (1, 2)
    ]
    rest = {"throughput_tok_s": None, "latency_ms": None, "gain_ratio": None}
    return {
        "model": "tiny-opt",
        "advice": "Run with a batch cap of 2.",
        "b_opt": 2,
        "rule": {"latency": "itl_mean_ms", "slo_ms": 8.0, "epsilon": 0.1},
        "candidates": [
            *({**one, "feasible": True, "reason": ""} for one in candidates),
            {"batch_cap": 8, **rest, "feasible": False, "reason": "not measured: oom"},
        ],
        "memory": {"kv_with_margin_bytes": 2.0**30},
    }


@pytest.mark.parametrize("name", OF_RATES)
def test_every_figure_names_what_it_does_not_draw(name: str, table: pd.DataFrame) -> None:
    figure, data = draw(name, of_sweep(table, {"tiny-opt": advice()}))
    named = "tiny-opt short" if name == "fig12" else "tiny-opt"
    assert f"not drawn: 1 oom ({named} cap 8)" in texts(figure)
    assert "4 points, 1 preempted, 1 failed" in texts(figure)
    assert "SIMULATED, not measured" in texts(figure)
    assert not data.empty or name in OF_SERIES


@pytest.mark.parametrize("name", OF_POINTS)
def test_every_figure_can_be_drawn_from_nothing(name: str, plan: dict[str, Any], tmp_path: Path) -> None:
    none = {**advice(), "b_opt": None, "advice": "No cap can be judged.", "candidates": []}
    none["rule"] = {**none["rule"], "slo_ms": None}
    none["memory"] = {}
    no_kernels = kernels_table({"sweep": "small", "points": []}, tmp_path)
    figure, data = draw(name, of_sweep(collect(plan, tmp_path), {"tiny-opt": none}, kernels=no_kernels))
    assert data.empty
    assert re.search("no (point|cap|memory)[a-z ]* of this sweep", texts(figure))
    figure, _ = draw(name, of_sweep(as_table([]), kernels=no_kernels))
    assert isinstance(figure, Figure)


def test_equal_data_give_equal_files(tmp_path: Path, table: pd.DataFrame) -> None:
    for folder in ("a", "b"):
        paths = [tmp_path / folder / f"f.{kind}" for kind in ("pdf", "png", "csv")]
        write_figure(*draw("fig02", of_sweep(table)), *paths)
    for kind in ("pdf", "png", "csv"):
        assert (tmp_path / f"a/f.{kind}").read_bytes() == (tmp_path / f"b/f.{kind}").read_bytes()


def test_preempted_points_are_not_part_of_the_line(table: pd.DataFrame) -> None:
    figure, data = draw("fig02", of_sweep(table))
    assert list(data["fate"]) == ["good", "good", "preempted"]
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == pytest.approx([0.95, 1.9])


def test_repeats_are_a_mean_with_its_interval(table: pd.DataFrame) -> None:
    doubled = pd.concat([table, table.assign(repeat=1, itl_mean_ms=table["itl_mean_ms"] + 2)])
    data = per_cap(doubled, ["itl_mean_ms"])
    first = data.iloc[0]
    assert first["itl_mean_ms"] == 7.0
    assert first["itl_mean_ms_low"] == 0.0
    assert first["itl_mean_ms_high"] == pytest.approx(7.0 + 12.706, abs=0.001)
    assert first["repeats"] == 2
    assert first["interval_source"] == "2 repeats, Student t, 95 %"


def test_a_point_measured_once_has_the_interval_within_its_run_or_none(table: pd.DataFrame) -> None:
    data = per_cap(table, ["total_throughput_tok_s"])
    assert data[["total_throughput_tok_s_low", "total_throughput_tok_s_high"]].isna().all(axis=None)
    assert set(data["interval_source"]) == {""}
    steady = table.assign(steady_output_throughput_ci95_fraction=0.1)
    first = per_cap(steady, ["total_throughput_tok_s", "itl_mean_ms"]).iloc[0]
    assert (first["total_throughput_tok_s_low"], first["total_throughput_tok_s_high"]) == pytest.approx((90.0, 110.0))
    assert first["interval_source"] == "within one run, batch means, 95 % (total_throughput_tok_s)"


@pytest.mark.parametrize("name", WITH_BARS)
def test_every_figure_says_what_its_bars_are(name: str, table: pd.DataFrame) -> None:
    assert "no bars: no interval is known" in texts(draw(name, of_sweep(table, {"tiny-opt": advice()}))[0])
    noisy = table.assign(
        repeat=1, itl_mean_ms=table["itl_mean_ms"] + 0.1, total_throughput_tok_s=table["total_throughput_tok_s"] + 1
    )
    both = pd.concat([table, noisy])
    advised = advice_for(both, "tiny-opt", check_config(small_config())["advisor"])
    figure, data = draw(name, of_sweep(both, {"tiny-opt": advised}))
    assert "bars their intervals: 2 repeats, Student t, 95 %" in texts(figure)
    assert list(data["repeats"][:2]) == [2, 2]
    assert set(data["interval_source"][:2]) == {"2 repeats, Student t, 95 %"}
    low, high = (data.filter(regex=rf"throughput_tok_s_{bound}$").iloc[0, 0] for bound in ("low", "high"))
    assert (low, high) == pytest.approx((100.5 - 12.706 / 2, 100.5 + 12.706 / 2), abs=0.001)


def test_provenance_and_failures_in_words(table: pd.DataFrame) -> None:
    real = table.assign(engine="vllm", engine_version="0.32.0")
    assert provenance_line(real.assign(source="recorded")) == (
        "recorded data; vllm 0.32.0; TEST GPU; driver 1.0; 2026-01-02; 4 points, 1 preempted, 1 failed"
    )
    assert failure_note(table[table["status"] == "ok"]) == ""


def test_the_papers_numbers_are_read_from_a_folder(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="paper_reference: cannot read"):
        draw("fig03", of_sweep(table, paper_reference=tmp_path))
    (tmp_path / "fig03.csv").write_text("model,kv_cache_max_usage_pct\nm,1\n")
    with pytest.raises(UserError, match="has no column"):
        draw("fig03", of_sweep(table, paper_reference=tmp_path))
    (tmp_path / "fig03.csv").write_text(
        "model,kv_cache_max_usage_pct,total_token_throughput_tok_per_s,plotted\nm,1,5,True\nm,2,6,False\n"
    )
    figure, _ = draw("fig03", of_sweep(table, paper_reference=tmp_path))
    assert "paper (H100, 64 GB)" in texts(figure)


def test_bad_advice_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: x\n")
    with pytest.raises(UserError, match="not an advice file"):
        read_advice([tmp_path / "a.yaml"])


@pytest.mark.parametrize(
    "command",
    [
        ["tabulate.py", "--plan", "none.json", "--table", "points", "--write", "points=t.parquet"],
        [
            "advise.py",
            "--plan",
            "none.json",
            "--table",
            "t.parquet",
            "--model",
            "m",
            "--out",
            "a.yaml",
            "--html",
            "a.html",
        ],
        ["draw.py", "--figure", "fig02", "--read", "sweep.points=none", "--pdf", "a", "--png", "b", "--csv", "c"],
        ["draw.py", "--figure", "fig02", "--pdf", "a", "--png", "b", "--csv", "c"],
        ["draw.py", "--figure", "fig2", "--pdf", "a", "--png", "b", "--csv", "c"],
        ["write_model.py", "--out", "m"],
    ],
)
def test_scripts_say_what_is_wrong_in_one_line(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("memgap: ")
    assert done.stderr.count("\n") == 1
