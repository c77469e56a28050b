"""The listing tells the state of every point and what a run would do, from what is stored."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from memgap import cli
from memgap.commands.listing import ASSUMED_START_S, cost, list_points
from memgap.errors import UserError
from memgap.study.study import Study
from memgap.workflow import load_study
from tests.support.records import small_config, small_study, store_point


def keys(study: Study) -> dict[int, str]:
    """Return the keys by cap."""
    return {point.record["batch_cap"]: key for key, point in study.points.items()}


def listing(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run `memgap list` on the configuration in a folder; returns what it printed."""
    command = ["list", "--configfile", str(folder / "c.yaml"), "--results", str(folder / "results"), *arguments]
    assert cli.main(command) == 0
    return capsys.readouterr().out


def test_a_failure_is_a_result_and_costs_nothing(tmp_path: Path) -> None:
    study = small_study()
    for key in study.points:
        store_point(tmp_path / "points", study.points[key].record, None, status="oom")
    rows = list_points(study, tmp_path)
    assert [row.state for row in rows] == ["oom"] * 3
    assert cost(rows, tmp_path) == (0, 0, 0.0)


def test_the_estimate_follows_what_was_measured_of_the_model(tmp_path: Path) -> None:
    study = small_study()
    before = {row.batch_cap: row.estimate_s for row in list_points(study, tmp_path)}
    store_point(tmp_path / "points", study.points[keys(study)[1]].record, {"tpot_mean_ms": 20_000.0})
    after = {row.batch_cap: row.estimate_s for row in list_points(study, tmp_path)}
    assert after[1] == 10.0, "the measured duration"
    assert after[2] > 100 * before[2]
    assert after[2] == pytest.approx(2 * after[4])


def test_the_start_of_each_server_is_counted_as_long_as_it_took(tmp_path: Path) -> None:
    study = small_study(cap_side="server")
    rows = list_points(study, tmp_path)
    points, servers, seconds = cost(rows, tmp_path)
    assert (points, servers) == (3, 3)
    assert seconds == pytest.approx(3 * ASSUMED_START_S + sum(row.estimate_s for row in rows))
    store_point(tmp_path / "points", study.points[keys(study)[1]].record, {})
    rows = list_points(study, tmp_path)
    points, servers, seconds = cost(rows, tmp_path)
    assert (points, servers) == (2, 2)
    assert seconds == pytest.approx(2 * 30.0 + sum(row.estimate_s for row in rows if row.state == "missing"))


def test_a_point_of_two_sweeps_is_listed_twice_and_counted_once(tmp_path: Path) -> None:
    config = small_config()
    config["sweeps"]["again"] = config["sweeps"]["small"]
    study = load_study(config)
    rows = list_points(study, tmp_path)
    assert len(rows) == 6
    assert cost(rows, tmp_path)[:2] == (3, 1)
    assert {row.sweep for row in list_points(study, tmp_path, "again")} == {"again"}
    with pytest.raises(
        UserError, match=r"list: unknown sweep 'agian' \(did you mean 'again'\?\); known are again, small"
    ):
        list_points(study, tmp_path, "agian")


@pytest.mark.parametrize("forms", [["text"], ["csv"], ["json"]])
def test_every_form_has_every_point(tmp_path: Path, capsys: pytest.CaptureFixture[str], forms: list[str]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_config()))
    study = small_study()
    store_point(tmp_path / "results/points", study.points[keys(study)[1]].record, {})
    printed = listing(tmp_path, capsys, "--format", forms[0], "--sweep", "small")
    assert all(key in printed for key in study.points)
    if forms == ["csv"]:
        rows = list(csv.DictReader(io.StringIO(printed)))
        assert [row["state"] for row in rows] == ["ok", "missing", "missing"]
    if forms == ["json"]:
        assert [row["batch_cap"] for row in json.loads(printed)] == [1, 2, 4]


def test_when_all_is_measured_a_run_would_measure_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_config()))
    for point in small_study().points.values():
        store_point(tmp_path / "results/points", point.record, {})
    assert listing(tmp_path, capsys).endswith("3 points: 3 ok\na run would measure nothing\n")


def test_points_that_will_be_measured_again_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config()
    study = load_study(config)
    for cap, key in keys(study).items():
        store_point(tmp_path / "results/points", study.points[key].record, {}, status="oom" if cap == 4 else "ok")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "remeasure_failed": True}))
    assert "measure 1 point" in listing(tmp_path, capsys)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "remeasure": [keys(study)[1]]}))
    assert "measure 1 point" in listing(tmp_path, capsys)


def test_a_foreign_file_in_the_store_disturbs_nothing(tmp_path: Path) -> None:
    study = small_study()
    (tmp_path / "points").mkdir()
    (tmp_path / "points/README").write_text("")
    assert cost(list_points(study, tmp_path), tmp_path)[0] == 3


def test_each_state_is_told_and_what_is_missing_costs(tmp_path: Path) -> None:
    study = small_study()
    records = {point.record["batch_cap"]: point.record for point in study.points.values()}
    store_point(tmp_path / "points", records[1], {"tpot_mean_ms": 10.0})
    key = store_point(tmp_path / "points", records[2], None, status="oom")
    (tmp_path / "points" / key / "point.json").write_text("{")
    rows = list_points(study, tmp_path)
    assert [row.state for row in rows] == ["ok", "garbled", "missing"]
    points, servers, seconds = cost(rows, tmp_path)
    assert (points, servers) == (2, 1)
    assert seconds > 30.0, "the start of a server counts, as long as the stored one took"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--configfile", "none.yaml"], "cannot read the configuration none.yaml"),
        (["list", "--configfile", "c.yaml", "--sweep", "smal"], "unknown sweep 'smal' (did you mean 'small'?)"),
        (["where", "--configfile", "none.yaml"], "cannot read the configuration"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_config()))
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1


def test_a_load_in_seconds_is_listed_and_estimated_as_such(tmp_path: Path) -> None:
    rows = list_points(small_study(load={"seconds": 30, "warmup_requests": 1}), tmp_path)
    assert [(row.load_s, row.requests) for row in rows] == [(30.0, 32)] * 3
    assert all(30.0 < row.estimate_s < 32.0 for row in rows)
    assert {row.load_s for row in list_points(small_study(), tmp_path)} == {None}


def test_the_advised_server_is_a_point_once_there_is_its_advice(tmp_path: Path) -> None:
    asked = {"advisor": {"verify": True}, "figures": {"fig02": {"sweep": "small"}}}
    study, advice = load_study({**small_config(), **asked}), {"server_args": {"max-num-seqs": 2}, "candidates": []}
    assert len(list_points(study, tmp_path)) == 3
    path = tmp_path / "advisor/tiny-opt.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"model": "tiny-opt", "b_opt": 2, "rule": {}, **advice}))
    (row,) = [row for row in list_points(study, tmp_path, "small") if row.experiment == "verification"]
    assert (row.batch_cap, row.state) == (2, "missing")
    recorded = load_study({**small_config(), **asked, "recorded": "recorded/h200"})
    assert len(list_points(recorded, tmp_path)) == 3, "recorded data that lack it will not get it"
    path.write_text("model: [")
    assert len(list_points(study, tmp_path)) == 3
