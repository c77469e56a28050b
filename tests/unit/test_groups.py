"""Latencies by part of a mixture, gaps over time and occupancy: on the simulated engine, and on numbers known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memgap.figures.over_time import panels
from memgap.recorded.export import export
from memgap.recorded.load import restore
from memgap.store.points import PointStore
from memgap.study.study import Study
from memgap.tables.gaps import MOST_GAPS, SENT, TOKEN, gaps_of, gaps_table, token_gaps
from memgap.tables.groups import groups_of, groups_table
from memgap.tables.inputs import Inputs
from memgap.tables.occupancy import occupancy_table, of_steps
from memgap.tables.points import collect
from memgap.workflow import load_study
from tests.support.drawing import draw
from tests.support.figures import texts
from tests.support.records import small_config
from tests.support.sessions import run_all

PARTS = [
    {"name": "short", "weight": 4, "prompt_tokens": 8, "output_tokens": 30},
    {"name": "long", "weight": 1, "prompt_tokens": 400, "output_tokens": 4},
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Return a study of long prompts among short streams, where a long prompt takes 40 ms, and its results."""
    server = {"step-base-ms": 1.0, "prefill-us-per-token": 100.0, "kv-tokens": 8192, "max-model-len": 1024}
    config = small_config(batch_cap=4, server=server, load={"requests": 60, "warmup_requests": 1})
    config["datasets"] = {"short": {"kind": "mixed", "requests": 60, "parts": PARTS}}
    study, results = load_study(config), tmp_path_factory.mktemp("mixed") / "results"
    run_all(study, results)
    return study, results


def plan_and_points(measured: tuple[Study, Path]) -> tuple[Any, Path]:
    study, results = measured
    return study.group_plan("small"), results / "points"


def test_each_part_has_its_latencies(measured: tuple[Study, Path]) -> None:
    plan, points = plan_and_points(measured)
    table = groups_table(plan, points).set_index("group")
    whole = collect(plan, points).iloc[0]
    assert table["requests_completed"].sum() == table["requests"].sum() == 60
    assert table["prompt_tokens_mean"].to_dict() == {"short": 8, "long": 400}
    assert table["output_tokens_mean"].to_dict() == {"short": 30, "long": 4}
    assert table["ttft_mean_ms"]["long"] > 40 > table["itl_median_ms"]["short"]
    assert table["itl_max_ms"]["short"] > 40, "a stream stands still while a long prompt is read"
    assert 0 < table["itl_values"].sum() <= whole["output_tokens"] - 60
    weights, means = table["requests_completed"], table["e2e_mean_ms"]
    assert (weights * means).sum() / 60 == pytest.approx(whole["window_e2e_mean_ms"], rel=1e-6)
    assert table["ttft_p99_ms"].isna().all(), "of fewer than 1000 requests there is no 99th percentile"
    assert table["itl_p99_ms"].notna().tolist() == (table["itl_values"] >= 1000).tolist()


def test_gaps_are_those_of_the_summary_and_of_many_the_largest_stay(measured: tuple[Study, Path]) -> None:
    plan, points = plan_and_points(measured)
    table, whole = gaps_table(plan, points), collect(plan, points).iloc[0]
    tokens, sends = table[table["event"] == TOKEN], table[table["event"] == SENT]
    assert np.repeat(tokens["gap_ms"], tokens["tokens"].astype(int)).mean() == pytest.approx(
        whole["window_itl_mean_ms"], rel=1e-6
    )
    assert (len(sends), sends["prompt_tokens"].max()) == (60, 400)


def test_choices_have_gaps_of_their_own() -> None:
    requests = pd.DataFrame({"index": [0, 1], "status": ["ok", "timeout"]})
    events = pd.DataFrame(
        {
            "request": [0, 0, 0, 0, 1, 1],
            "choice": [0, 0, 1, 1, 0, 0],
            "time_s": [1.0, 2.0, 1.5, 4.5, 0.0, 9.0],
            "tokens": [1, 2, 1, 3, 1, 1],
        }
    )
    assert token_gaps(requests, events)["gap_ms"].tolist() == [500.0, 1000.0]


def test_of_many_gaps_the_largest_and_an_even_choice_are_kept(measured: tuple[Study, Path], tmp_path: Path) -> None:
    _, points = plan_and_points(measured)
    folder, (key,) = tmp_path / "points", PointStore(points).stored_keys()
    point = PointStore(points).read(key) or {}
    times_s = np.cumsum(np.random.default_rng(1).exponential(0.01, 9001))
    requests = (points / key / "requests.csv.gz").read_bytes()
    PointStore(folder).write(key, point, {"requests.csv.gz": requests})
    np.savez(folder / key / "tokens.npz", request=np.zeros(9001), time_s=times_s, tokens=np.ones(9001, int))
    table = gaps_of(folder / key)
    tokens = table[table["event"] == TOKEN]
    assert len(tokens) <= MOST_GAPS and tokens["kept_every"].unique().tolist() == [4]
    assert tokens["gap_ms"].max() == pytest.approx(np.diff(times_s).max() * 1e3)


def test_recorded_points_keep_their_parts_and_gaps(measured: tuple[Study, Path], tmp_path: Path) -> None:
    study, results = measured
    plan, points = plan_and_points(measured)
    assert export(results, tmp_path / "recorded") == 1
    store = PointStore(tmp_path / "points")
    (session,) = study.sessions
    restore(tmp_path / "recorded", session, set(study.points), store)
    for make in (groups_table, gaps_table):
        pd.testing.assert_frame_equal(
            make(plan, points), make(plan, store.folder), check_dtype=False, check_exact=False, rtol=1e-6
        )


def test_points_without_parts_or_tokens_have_no_rows(tmp_path: Path) -> None:
    study = load_study(small_config(batch_cap=2))
    run_all(study, tmp_path / "results")
    plan, points = study.group_plan("small"), tmp_path / "results/points"
    assert groups_table(plan, points).empty
    (key,) = study.points
    for name in ("tokens.npz", "requests.csv.gz"):
        (points / key / name).unlink()
    assert gaps_table(plan, points).empty
    assert groups_of(points / key, {"dataset": {"parts": PARTS}}).empty


def test_the_figures_have_a_panel_a_point(measured: tuple[Study, Path]) -> None:
    plan, points = plan_and_points(measured)
    table = collect(plan, points).assign(verdict="valid")
    given = {"sweep.points": table, "sweep.gaps": gaps_table(plan, points)}
    figure, numbers = draw("itl_series", Inputs(given))
    labels = [one.get_text() for one in figure.legends[0].get_texts()]
    assert labels == ["a token of the others", "of the longest prompts", "a long prompt is sent"]
    assert set(numbers["event"]) == {SENT, TOKEN}
    occupancy = occupancy_table(plan, points)
    figure, numbers = draw("occupancy", Inputs({"sweep.points": table, "sweep.occupancy": occupancy}))
    assert len(numbers) == len(occupancy) and "SIMULATED" in figure.get_supxlabel()
    for name in ("itl_series", "occupancy"):
        figure, _ = draw(name, Inputs({"sweep.points": table}))
        assert "no point of this sweep" in texts(figure)


def test_of_static_batches_the_unfinished_requests_run() -> None:
    requests = pd.DataFrame({"index": [0, 1, 2], "output_tokens_asked": [3, 1, 2]})
    steps = pd.DataFrame({"batch": [0, 0, 0, 1, 1], "time_s": [1.0, 2.0, 3.0, 4.0, 5.0]})
    found = of_steps(steps, requests, 2)
    assert found["running_reqs"].tolist() == [2, 1, 1, 1, 1]
    assert found["waiting_reqs"].tolist() == [1, 1, 1, 0, 0]


def test_panels_are_called_by_what_differs() -> None:
    row = {"model": "m", "engine": "e", "dataset": "d", "cap_side": "client", "arrival": "closed", "status": "ok"}
    row |= {"verdict": "valid", "flags": "", "repeat": 0, "experiment": "x", "batch_cap": 4}
    arguments = ['{"block-size":16}', '{"block-size":32,"enforce-eager":true}']
    table = pd.DataFrame([{**row, "key": f"k{number}", "server_args": one} for number, one in enumerate(arguments)])
    titles, note = panels(table)
    assert list(titles.values()) == ["block-size 16, enforce-eager by default", "block-size 32, enforce-eager true"]
    assert not note
    many = pd.DataFrame([{**row, "key": f"k{cap}", "batch_cap": cap, "server_args": "{}"} for cap in range(1, 11)])
    assert panels(many)[1] == "2 further points are not drawn" and panels(many)[0]["k1"] == "cap 1"
