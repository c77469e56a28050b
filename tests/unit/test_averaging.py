"""Over what a throughput or a latency is averaged: the steady part where there is one, else the window."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from memgap.advisor.report import advice_for
from memgap.advisor.verify import verification
from memgap.kinds.online.kind import ONLINE
from memgap.recorded.compare import comparison
from memgap.recorded.files import all_points
from memgap.session.stop import Seen, choose
from memgap.stats.averaging import (
    AVERAGED,
    STEADY,
    WINDOW,
    averaging_of,
    chosen,
    derived,
    is_of_window,
    of_window,
    restored,
    steady_value,
    value,
)
from memgap.stats.intervals import WITHIN_ONE_RUN, column_interval
from memgap.tables.alike import alike
from memgap.tables.claims import Study, claims_table
from memgap.tables.inputs import Inputs
from memgap.tables.points import WINDOW_COLUMNS, as_table, collect, in_window
from memgap.tables.provenance import averaging_note
from memgap.tables.tab04 import table as table_iv
from memgap.tuning.formulas import per_gpu
from memgap.tuning.objective import log_value
from memgap.workflow import load_study
from tests.support.drawing import draw
from tests.support.records import small_config
from tests.support.sessions import run_all

CHECKOUT = Path(__file__).resolve().parents[2]
WHOLE = {
    "total_throughput_tok_s": 300.0,
    "output_throughput_tok_s": 200.0,
    "request_throughput_req_s": 2.0,
    "itl_mean_ms": 5.0,
    "itl_p99_ms": 9.0,
    "e2e_mean_ms": 500.0,
    "e2e_p99_ms": 900.0,
    "mean_running_reqs": 2.0,
    "prompt_tokens": 1000.0,
    "output_tokens": 2000.0,
    "requests_completed": 20.0,
    "duration_s": 10.0,
}
PARTLY = {
    **WHOLE,
    "steady_output_throughput_tok_s": 400.0,
    "steady_share_fraction": 0.5,
    "steady_itl_mean_ms": 6.0,
    "steady_mean_running_reqs": 4.0,
}
"""As points were recorded before all of the steady part was kept."""


def test_a_value_is_of_the_steady_part_where_there_is_one() -> None:
    assert (value(PARTLY, "itl_mean_ms"), value(PARTLY, "itl_mean_ms", WINDOW)) == (6.0, 5.0)
    assert value(PARTLY, "mean_running_reqs") == 4.0
    assert value(PARTLY, "e2e_mean_ms") == 500.0, "not kept of the steady part"
    assert value(PARTLY, "duration_s") == 10.0, "has no steady part"
    assert value(PARTLY, "ttft_mean_ms") is None
    assert value(WHOLE, "itl_mean_ms") == 5.0


def test_a_steady_part_that_is_too_short_is_none() -> None:
    short = {**PARTLY, "steady_share_fraction": 0.19}
    assert averaging_of(short) == WINDOW
    assert chosen(short) == short
    assert averaging_of({**WHOLE, "steady_start_s": 1.0, "steady_share_fraction": 0.1}) == WINDOW


def test_steady_throughputs_that_were_not_kept_follow_from_the_output_throughput() -> None:
    """Half a prompt token and a hundredth of a request come with each output token."""
    assert derived(PARTLY) == {"steady_total_throughput_tok_s": 600.0, "steady_request_throughput_req_s": 4.0}
    assert value(PARTLY, "total_throughput_tok_s") == 600.0
    assert value({**PARTLY, "steady_total_throughput_tok_s": 610.0}, "total_throughput_tok_s") == 610.0, "kept"
    assert derived(WHOLE) == {} == derived({"steady_output_throughput_tok_s": 1.0})


def test_what_fell_back_to_the_window_is_named() -> None:
    assert of_window(PARTLY) == "itl_p99_ms, e2e"
    assert of_window(PARTLY, WINDOW) is None is of_window(WHOLE)
    assert is_of_window("itl_p99_ms, e2e", "e2e_mean_ms")
    assert is_of_window("itl_p99_ms, e2e", "itl_p99_ms")
    assert not is_of_window("itl_p99_ms, e2e", "itl_mean_ms")
    assert not is_of_window(None, "itl_mean_ms")
    assert not is_of_window("itl", "itl_chunk_mean_ms"), "another latency whose name begins alike"


def load(requests: int) -> dict[str, Any]:
    """Return a record's load of 8 seats."""
    return {"arrival": "closed", "concurrency": 8, "requests": requests}


def test_two_requests_a_seat_have_no_steady_part_whatever_was_recorded() -> None:
    """The last request is sent when as many have ended as there are seats, and there the steady part would begin."""
    summary = {**PARTLY, "steady_start_s": 2.0, "steady_end_s": 7.0}
    found = restored(summary, load(16))
    assert averaging_of(found) == WINDOW
    assert (found["steady_start_s"], found["steady_end_s"], found["steady_share_fraction"]) == (7.0, 7.0, 0.0)
    assert not [name for name in found if name.startswith("steady_") and name.endswith(("_ms", "_tok_s"))]
    kept = restored(summary, load(17))
    assert kept == {**summary, **derived(summary)}
    assert restored({"decode_s": 1.0}, {}) == {"decode_s": 1.0}


def test_the_recorded_points_get_their_steady_total_when_they_are_restored() -> None:
    points = {
        (one["record"]["model"]["name"], one["record"]["batch_cap"]): one
        for one in all_points(CHECKOUT / "recorded/h200")
        if one["record"].get("kind") is None and one["record"]["server"]["replicas"] == 1
    }
    raw = points["opt-1.3b", 64]
    summary = ONLINE.restored(raw)["summary"]
    assert "steady_total_throughput_tok_s" not in raw["summary"], "the files are as they were"
    rate = summary["steady_output_throughput_tok_s"]
    each = 1 + summary["prompt_tokens"] / summary["output_tokens"]
    assert summary["steady_total_throughput_tok_s"] == pytest.approx(rate * each)
    assert averaging_of(summary) == STEADY
    assert averaging_of(ONLINE.restored(points["llama-2-7b", 512])["summary"]) == WINDOW


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Return the plan and the store's points of a small sweep on the simulated engine."""
    folder = tmp_path_factory.mktemp("averaging")
    load = {"requests": 30, "warmup_requests": 1}
    study = load_study(small_config(server={"step-base-ms": 10.0}, load=load))
    run_all(study, folder)
    return study.group_plan("small"), folder / "points"


def summaries(plan: dict[str, Any], points: Path) -> list[dict[str, float]]:
    """Return the stored summaries in the plan's order."""
    return [json.loads((points / one["key"] / "point.json").read_text())["summary"] for one in plan["points"]]


def test_the_table_has_the_chosen_values_and_those_of_the_window(measured: tuple[dict[str, Any], Path]) -> None:
    plan, points = measured
    assert plan["averaging"] == STEADY, "the default"
    table = collect(plan, points)
    assert set(table["averaging"]) == {STEADY}
    assert table["of_window"].isna().all(), "all was kept"
    for row, summary in zip(table.to_dict("records"), summaries(plan, points), strict=True):
        for name, column in zip(AVERAGED, WINDOW_COLUMNS, strict=True):
            if name.startswith("ttft_answer"):
                assert name not in summary, "nothing reasons here"
                continue
            assert row[name] == summary[f"steady_{name}"]
            assert row[column] == summary[name]
    assert averaging_note(table) == "averages over the steady part"


def test_window_averaging_gives_the_old_columns_back(measured: tuple[dict[str, Any], Path]) -> None:
    plan, points = measured
    table = collect({**plan, "averaging": WINDOW}, points)
    old = [name for name in table.columns if name not in ("averaging", "of_window", *WINDOW_COLUMNS)]
    for row, summary in zip(table.to_dict("records"), summaries(plan, points), strict=True):
        assert {name: row[name] for name in old if name in summary} == {
            name: number for name, number in summary.items() if name in old
        }
    assert set(table["averaging"]) == {WINDOW}
    assert averaging_note(table) == "averages over the whole window"
    again = in_window(collect(plan, points))
    pd.testing.assert_frame_equal(again, table)


def test_the_key_of_a_point_does_not_depend_on_it() -> None:
    studies = [load_study({**small_config(), "averaging": one}) for one in (STEADY, WINDOW)]
    assert studies[0].points.keys() == studies[1].points.keys()
    assert studies[0].group_plan("small") != studies[1].group_plan("small"), "tables are made again"
    assert studies[0].session_plan(next(iter(studies[0].sessions))) == studies[1].session_plan(
        next(iter(studies[1].sessions))
    ), "and sessions without a stop rule are not"


def texts(figure: Figure) -> str:
    """Return the small print under a figure."""
    return " ".join(figure.get_supxlabel().split())


def test_overlays_of_the_paper_are_over_the_window(measured: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    plan, points = measured
    table = collect(plan, points)
    (tmp_path / "fig02.csv").write_text(
        "mean_running_reqs_within_duration,total_token_throughput_tok_per_s,mean_itl_ms,plotted,model\n1,10,5,True,m\n"
    )
    (tmp_path / "fig10.csv").write_text(
        "model,batch_size,mean_itl_ms,total_token_throughput_tok_per_s,throughput_gain_ratio,in_paper_figure\n"
        "m,1,5,10,1,True\n"
    )
    settings = load_study(small_config()).config["advisor"]
    advice = {"tiny-opt": advice_for(table, "tiny-opt", settings)}
    given = {"sweep.points": table, "sweep.advice": advice}
    for name, column in (("fig02", "total_throughput_tok_s"), ("fig10", "throughput_tok_s")):
        figure, data = draw(name, Inputs(given))
        assert "averages over the steady part" in texts(figure)
        assert data[column].tolist() == pytest.approx(table["total_throughput_tok_s"].tolist(), rel=1e-5)
        figure, data = draw(name, Inputs(given, paper_reference=tmp_path))
        assert "averages over the whole window" in texts(figure)
        assert data[column].tolist() == pytest.approx(table["window_total_throughput_tok_s"].tolist(), rel=1e-5)


def row(cap: int, averaging: str, tok_s: float, window_tok_s: float, **changes: Any) -> dict[str, Any]:
    """Return a made-up row of a table of points."""
    return {
        "model": "m",
        "engine": "vllm",
        "batch_cap": cap,
        "replicas": 1,
        "mps": "no",
        "repeat": 0,
        "status": "ok",
        "flags": "",
        "verdict": "valid",
        "server_args": "{}",
        "averaging": averaging,
        "cap_side": "client",
        "total_throughput_tok_s": tok_s,
        "window_total_throughput_tok_s": window_tok_s,
        "itl_mean_ms": 1.0,
        "steady_output_throughput_ci95_fraction": 0.1,
        "steady_itl_mean_ci95_fraction": 0.2,
        **changes,
    }


def test_ratios_are_of_the_same_average() -> None:
    """MAX has no steady part: its window against the window of the others, never against their steady part."""
    rows = [row(1, STEADY, 100, 90), row(8, STEADY, 600, 400), row(16, STEADY, 700, 500), row(32, WINDOW, 550, 550)]
    table = as_table(rows)
    assert alike("total_throughput_tok_s", table[:2], table[2:3]) == "total_throughput_tok_s"
    assert alike("total_throughput_tok_s", table[:2], table[3:]) == "window_total_throughput_tok_s"
    claims = claims_table(Study(table, as_table([]), {})).set_index("claim")["measured"]
    assert claims["Batching multiplies throughput over batch 1"] == pytest.approx(700 / 100)
    plateau = claims[next(one for one in claims.index if one.startswith("Throughput reaches a plateau"))]
    assert plateau == pytest.approx(550 / 500 - 1)
    twice = as_table([row(8, STEADY, 900, 600, replicas=2, mps="yes"), row(8, STEADY, 600, 400)])
    found = table_iv(twice, table).set_index("replicas")
    assert found.loc[2, "throughput_ktok_s"] == 0.9
    assert found.loc[2, "gain_over_same_cap_fraction"] == pytest.approx(900 / 600 - 1)
    assert found.loc[2, "gain_over_max_fraction"] == pytest.approx(600 / 550 - 1)
    assert (found.loc[2, "averaging"], found.loc[2, "max_cap"]) == (STEADY, 32)


def test_points_over_the_window_are_hollow_and_not_joined_to_the_others() -> None:
    mixed = as_table([row(1, STEADY, 100, 90), row(2, STEADY, 190, 150), row(32, WINDOW, 550, 550)])
    mixed = mixed.assign(mean_running_reqs=mixed["batch_cap"].astype(float))
    figure, data = draw("fig02", Inputs({"sweep.points": mixed}))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) and line.get_marker() in ("o", "s")]
    assert [list(line.get_xdata()) for line in lines] == [[1.0, 2.0], [32.0]]
    assert [str(line.get_markerfacecolor()) == "white" for line in lines] == [False, True]
    assert data["averaging"].tolist() == [STEADY, STEADY, WINDOW]


def test_footers_name_the_points_without_a_steady_part() -> None:
    mixed = as_table([row(1, STEADY, 100, 90), row(32, WINDOW, 550, 550), row(64, WINDOW, 560, 560)])
    assert averaging_note(mixed) == "averages over the steady part, over the whole window for want of one: m cap 32, 64"
    assert averaging_note(as_table([])) == ""


def test_a_latency_of_the_steady_part_has_an_interval_of_one_run() -> None:
    found = column_interval(as_table([row(1, STEADY, 100, 90)]), "itl_mean_ms")
    assert found is not None
    assert (found.low, found.high, found.source) == (pytest.approx(0.8), pytest.approx(1.2), WITHIN_ONE_RUN)
    assert column_interval(as_table([row(1, WINDOW, 100, 90)]), "itl_mean_ms") is None


def test_stop_rules_searches_and_races_see_the_same_value() -> None:
    def spread(averaging: str) -> list[str]:
        record = {"batch_cap": 8, "load": {}}
        points = [{"key": str(one), "record": {**record, "repeat": one}} for one in range(4)]
        rates = [100.0, 150.0, 200.0]
        seen = {
            str(one): Seen("ok", True, False, {**PARTLY, "total_throughput_tok_s": rate})
            for one, rate in enumerate(rates)
        }
        stop = {"repeats": {"least": 3, "interval_fraction": 0.05}}
        rule = {"points": [one["key"] for one in points], "stop": stop, "advisor": None, "averaging": averaging}
        return choose(points, [rule], seen, {}).wanted

    assert spread(STEADY) == [], "the steady rates are equal"
    assert spread(WINDOW) == ["3"]
    point = {"key": "k", "summary": PARTLY}
    assert log_value("output_tps_per_gpu", point, 1) > log_value("output_tps_per_gpu", point, 1, WINDOW)
    assert log_value("e2e_mean_ms", point, 1) == log_value("e2e_mean_ms", point, 1, WINDOW)
    assert per_gpu(PARTLY, 2)["output_tps_per_gpu"] == 200.0
    assert per_gpu(PARTLY, 2)["input_tps_per_gpu"] == 100.0
    assert per_gpu(PARTLY, 2, WINDOW)["output_tps_per_gpu"] == 100.0


def test_a_verification_compares_what_was_predicted() -> None:
    averages = {"total_throughput_tok_s": STEADY, "itl_mean_ms": STEADY}
    advice = {
        "model": "m",
        "b_opt": 4,
        "memory": {},
        "server_flags": [],
        "averaging": averages,
        "rule": {"latency": "itl_mean_ms", "slo_ms": 12.0},
        "expected": {"total_throughput_tok_s": 600.0, "itl_mean_ms": 6.0},
    }
    point = {"key": "k", "status": "ok", "summary": PARTLY, "engine": {}, "verdict": {"verdict": "valid"}}
    assert verification(advice, point)["holds"] is True
    found = verification(advice, {**point, "summary": WHOLE})
    assert found["holds"] is False
    assert "measured the whole window's" in found["sentence"]
    whole = {**advice, "averaging": dict.fromkeys(averages, WINDOW)}
    assert verification(whole, point)["predicted_and_measured"]["itl_mean_ms"]["measured"] == 5.0


def test_runs_are_compared_by_the_same_average(measured: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    plan, points = measured
    olds = [json.loads((points / one["key"] / "point.json").read_text()) for one in plan["points"]]
    for old in olds:
        old["summary"] = {name: one for name, one in old["summary"].items() if not name.startswith("steady_e2e")}
        old["summary"]["e2e_mean_ms"] *= 2
        old["summary"]["total_throughput_tok_s"] *= 3
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(old) + "\n" for old in olds))
    found = comparison(points.parent, tmp_path)
    assert found["total_throughput_tok_s_ratio"].tolist() == pytest.approx([1.0] * len(olds)), "both steady"
    assert found["e2e_mean_ms_ratio"].tolist() == pytest.approx([0.5] * len(olds)), "both over the window"


def test_there_is_no_steady_value_of_what_has_none() -> None:
    assert steady_value(PARTLY, "duration_s") is None
