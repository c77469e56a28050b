"""A rerun recomputes what is stale, and nothing else."""

import os
from pathlib import Path

import pytest
import yaml

from tests.support.studies import Study

pytestmark = pytest.mark.workflow


def test_everything_is_made_and_a_second_run_does_nothing(measured: Study) -> None:
    for name in ("fig02", "fig03", "fig10"):
        for kind in ("pdf", "png", "csv"):
            assert (measured.folder / "figures" / f"{name}.{kind}").stat().st_size > 0
    advice = yaml.safe_load((measured.folder / "results/advisor/tiny-opt.yaml").read_text())
    assert advice["model"] == "tiny-opt"
    assert {cap: point["status"] for cap, point in measured.points().items()} == {1: "ok", 2: "ok", 4: "ok"}
    assert measured.processes() == []
    assert "Nothing to be done" in measured.run()


def test_one_changed_point_is_one_measurement(measured: Study) -> None:
    before = measured.measured_at()
    measured.fixed["batch_cap"] = [1, 2, 8]
    assert measured.planned()["session"] == 1
    measured.run()
    after = measured.measured_at()
    assert {key: time for key, time in after.items() if before.get(key) != time}.keys() == after.keys() - before.keys()
    assert len(after.keys() - before.keys()) == 1


def test_one_changed_experiment_measures_its_own_points_only(study: Study) -> None:
    study.config["sweeps"]["small"]["experiments"] = {
        "short": {"load": {"requests": 8}},
        "long": {"load": {"requests": 12}, "batch_cap": 4},
    }
    study.config["figures"] = {}
    study.run()
    before = study.measured_at()
    study.config["sweeps"]["small"]["experiments"]["long"]["load"]["requests"] = 13
    study.run()
    after = study.measured_at()
    assert len(before) == 4
    assert len(after) == 5
    assert {key for key in before if after[key] != before[key]} == set()


def test_touching_reordering_and_comments_measure_nothing(measured: Study) -> None:
    before = measured.measured_at()
    for path in [*measured.folder.glob("results/models/*/*"), *measured.folder.glob("results/datasets/*")]:
        os.utime(path)
    config = measured.config
    config["sweeps"]["small"]["fixed"] = dict(reversed(measured.fixed.items()))
    measured.config = dict(reversed(config.items()))
    command = measured.command()
    path = measured.folder / "config.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert command
    assert "session" not in measured.planned()
    assert measured.measured_at() == before


def test_moving_the_results_of_a_point_away_measures_that_point(measured: Study) -> None:
    before = measured.measured_at()
    gone = measured.points()[2]["key"]
    for path in (measured.folder / "results/points" / gone).iterdir():
        path.unlink()
    (measured.folder / "results/points" / gone).rmdir()
    measured.run("--forcerun", "session")
    after = measured.measured_at()
    assert [key for key in before if after[key] != before[key]] == [gone]


def test_remeasure_names_one_point(measured: Study) -> None:
    before = measured.measured_at()
    key = measured.points()[4]["key"]
    measured.config["remeasure"] = [key]
    measured.run()
    after = measured.measured_at()
    assert [one for one in before if after[one] != before[one]] == [key]
    assert "Nothing to be done" in measured.run()


def test_a_change_of_the_advisor_measures_nothing(measured: Study) -> None:
    measured.config["advisor"]["epsilon"] = 0.2
    planned = measured.planned()
    assert "session" not in planned
    assert planned["advise"] == 1


def test_a_workstation_runs_one_server_at_a_time_whatever_j_is_and_a_new_cap_leaves_the_others_alone(
    study: Study,
) -> None:
    study.fixed["cap_side"] = "server"
    study.config["figures"] = {}
    study.jobs = 4
    study.run()
    windows = sorted((one["window"]["start_unix_s"], one["window"]["end_unix_s"]) for one in study.points().values())
    assert len(windows) == 3
    assert all(windows[i][1] < windows[i + 1][0] for i in range(2))
    study.fixed["batch_cap"] = [1, 2, 4, 8]
    assert study.planned()["session"] == 1


def test_the_lock_of_a_killed_driver_is_removed_only_then(study: Study, tmp_path: Path) -> None:
    from memgap.commands.unlock import remove_stale_lock

    assert remove_stale_lock(tmp_path) is False
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results\n")
    assert remove_stale_lock(tmp_path) is True
    assert not lock.exists()


def test_a_target_alone_is_enough(study: Study) -> None:
    study.jobs = None
    study.run("figures/fig02.png")
    assert (study.folder / "figures/fig02.pdf").exists()
    assert not (study.folder / "figures/fig10.pdf").exists()
    assert (study.folder / "results/tables/small.html").exists()


def test_another_slo_measures_nothing(study: Study) -> None:
    study.config["slos"] = {"fast": {"ttft_ms": 500}}
    study.config["figures"] = {}
    study.run()
    first = (study.folder / "results/tables/small.goodput.csv").read_text().splitlines()
    assert len(first) == 1 + 3
    study.config["slos"]["strict"] = {"e2e_ms": 0.001}
    assert study.planned() == {"table_goodput": 1, "all": 1}
    study.run()
    rows = (study.folder / "results/tables/small.goodput.csv").read_text().splitlines()
    assert len(rows) == 1 + 6
    study.run("results/tables/small.series.csv")
    assert (study.folder / "results/tables/small.series.csv").read_text().startswith("sweep,experiment,key")
