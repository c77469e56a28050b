"""Files that other tools wrote against the simulated server (benchmarks/foreign_files.py); points written for them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from memgap.advisor.report import advice_for
from memgap.cli import main
from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.figures.points import per_cap
from memgap.foreign.benchmark_report import write as write_report
from memgap.foreign.files import keep, kept_rows, read_foreign, rows_of
from memgap.foreign.perfetto import trace
from memgap.foreign.vllm_bench import write as write_vllm
from memgap.store.points import PointStore
from memgap.tables.kernels import kernels_table
from memgap.tables.points import collect
from memgap.tables.provenance import provenance_line
from tests.support.drawing import draw, of_sweep, reading
from tests.support.figures import texts
from tests.support.records import small_config, small_study, store_point
from tests.support.sessions import run_session

DATA = Path(__file__).parent / "data/foreign"
FILES = sorted([*DATA.glob("*.json*"), *DATA.glob("inference-perf/*.json")])
SCHEMA = yaml.safe_load((DATA / "benchmark_report_0_2_1.yaml").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_tool_wrote_is_read_in_our_words(path: Path) -> None:
    """All tools sent requests of 16 and 32 tokens, four at once or at a rate, to a server of 5 ms a step."""
    found = read_foreign(path)
    for one in found:
        values = one.values
        assert one.status == "ok"
        assert (one.concurrency == 4) != (one.rate_req_s in (6.0, 10.0))
        assert values["requests_completed"] in (24, 30)
        assert values["output_tokens"] == 32 * values["requests_completed"]
        assert values["prompt_tokens"] == 16 * values["requests_completed"]
        assert values["total_throughput_tok_s"] == pytest.approx(1.5 * values["output_throughput_tok_s"], rel=0.01)
        assert values["output_throughput_tok_s"] == pytest.approx(32 * values["request_throughput_req_s"], rel=0.01)
        between_ms = values.get("itl_mean_ms", values.get("tpot_mean_ms", math.nan))
        assert 4.0 < between_ms < 20.0
        assert values["ttft_mean_ms"] + 31 * between_ms == pytest.approx(values["e2e_mean_ms"], rel=0.05)
        assert values["e2e_p99_ms"] >= values["e2e_median_ms"]
        assert all(math.isfinite(value) for value in values.values())


def test_every_tool_has_a_file() -> None:
    tools = {one.tool for path in FILES for one in read_foreign(path)}
    assert tools == {"vllm bench serve", "GuideLLM", "AIPerf", "sglang bench", "inference-perf"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "no json", '{"total_token_throughput": 1}', '{"aiperf_version": "1"}']
)
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is no (whole )?result of"):
        read_foreign(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_foreign(tmp_path / "none.json")


def test_imported_results_are_rows_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = small_study().group_plan("small")
    files = [str(DATA / "vllm.json"), str(DATA / "guidellm-rate.json")]
    results = ["--results", str(tmp_path)]
    assert main(["import", *files, "--sweep", "small", *results]) == 0
    assert main(["import", files[0], "--sweep", "small", *results]) == 0  # the same once more is no other row
    assert "1 of vllm bench serve, 1 of GuideLLM" in capsys.readouterr().err
    table = collect(plan, tmp_path / "points")
    rows = table[table["model"].isin(["mock (vllm bench serve)", "mock (GuideLLM)"])]
    assert len(rows) == 2 and len(table) == len(plan["points"]) + 2
    assert rows["status"].tolist() == ["ok", "ok"]
    assert rows["gpu_name"].isna().all() and rows["mean_running_reqs"].isna().all()
    drawn = per_cap(table, ["output_throughput_tok_s", "mean_running_reqs"])
    assert set(drawn["model"]) == set(rows["model"])
    assert drawn["mean_running_reqs"].isna().all()
    assert "1 points of GuideLLM 0.8.1" in provenance_line(table)
    assert main(["import", files[0]]) == 0
    assert "mock (vllm bench serve)" in capsys.readouterr().out
    (tmp_path / "foreign/small.csv").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"small\.csv is damaged"):
        kept_rows(tmp_path, "small")


@pytest.mark.parametrize("name", sorted(set(reading("sweep.points")) - {"roofline"}))
def test_every_figure_of_a_sweep_takes_them(name: str, tmp_path: Path) -> None:
    plan = small_study().group_plan("small")
    bare = read_foreign(DATA / "sglang.jsonl")[1]
    failed = replace(bare, values={"requests_sent": 4.0, "requests_completed": 3.0, "requests_failed": 1.0})
    keep(tmp_path, "small", rows_of([*(one for path in FILES for one in read_foreign(path)), failed], "small"))
    advice = {
        "tiny-opt": advice_for(collect(plan, tmp_path / "none"), "tiny-opt", check_config(small_config())["advisor"])
    }
    figure, _ = draw(name, of_sweep(collect(plan, tmp_path / "points"), advice, kernels=kernels_table(plan, tmp_path)))
    assert "points of AIPerf 0.13.0" in texts(figure)


def test_rows_are_kept_and_read_back(tmp_path: Path) -> None:
    rows = rows_of(read_foreign(DATA / "aiperf.json"), "s")
    keep(tmp_path, "s", rows)
    assert kept_rows(tmp_path, "s") == [{name: one for name, one in row.items() if one is not None} for row in rows]


def summary() -> dict[str, float]:
    """Return what is measured of a point."""
    counts = {"requests_sent": 8.0, "requests_completed": 8.0, "requests_failed": 0.0, "duration_s": 2.0}
    tokens = {"prompt_tokens": 80.0, "output_tokens": 160.0, "output_throughput_tok_s": 80.0}
    rates = {"total_throughput_tok_s": 120.0, "request_throughput_req_s": 4.0, "kv_cache_usage_mean_fraction": 0.25}
    latencies = {f"{name}_{part}_ms": 10.0 for name in ("ttft", "tpot", "itl", "e2e") for part in ("mean", "p99")}
    return {**counts, **tokens, **rates, **latencies}


@pytest.fixture
def point(tmp_path: Path) -> dict[str, Any]:
    """Return a stored point."""
    record = small_study().group_plan("small")["points"][0]["record"]
    key = store_point(tmp_path / "points", record, summary())
    found = PointStore(tmp_path / "points").read(key)
    assert found is not None
    return found


def test_our_point_comes_back_from_the_format_of_vllm_bench(tmp_path: Path, point: dict[str, Any]) -> None:
    (tmp_path / "ours.json").write_text(json.dumps(write_vllm(point)))
    (found,) = read_foreign(tmp_path / "ours.json")
    known = {name: value for name, value in summary().items() if "kv_cache" not in name}
    assert dict(found.values) == known
    assert found.concurrency == point["record"]["load"]["concurrency"]
    real = json.loads((DATA / "vllm.json").read_text())
    assert set(write_vllm(point)) <= {*real, "tokenizer_id"}


def test_a_benchmark_report_is_valid(point: dict[str, Any]) -> None:
    report = write_report(point)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    aggregate = report["results"]["request_performance"]["aggregate"]
    assert aggregate["latency"]["time_to_first_token"] == {"units": "ms", "mean": 10.0, "p99": 10.0}
    assert "normalized_time_per_output_token" not in aggregate["latency"]
    assert aggregate["requests"]["output_length"]["mean"] == 20.0
    assert report["results"]["observability"]["components"][0]["aggregate"]["kv_cache_usage"]["mean"] == 0.25
    report["results"]["request_performance"]["aggregate"]["latency"]["ttft"] = {}
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(report)


def test_points_are_exported_by_key(tmp_path: Path, point: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path)]
    assert main(["export", point["key"], "--format", "llm-d", "--out", str(tmp_path / "r.json"), *results]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["run"]["uid"] == point["key"]
    assert main(["export", "0" * 16, "--format", "llm-d", *results]) == 2
    assert main(["export", point["key"], "--format", "perfetto", *results]) == 2
    said = capsys.readouterr().err
    assert "no point 0000000000000000" in said and "nothing to trace" in said


def test_a_trace_has_each_request_on_a_free_track(tmp_path: Path) -> None:
    stored = run_session(small_study(batch_cap=4), tmp_path)
    folder = tmp_path / "results/points" / stored["key"]
    found = trace(stored, folder)
    spans = [one for one in found["traceEvents"] if one["ph"] == "X"]
    assert len(spans) == 2 * stored["summary"]["requests_completed"]
    assert {one["tid"] for one in spans} <= set(range(1, stored["record"]["batch_cap"] + 1))
    assert any(one["ph"] == "C" and one["name"] == "requests" for one in found["traceEvents"])
    assert all(one["dur"] >= 0 for one in spans)
