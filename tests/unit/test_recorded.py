"""Recorded data: exported thin, restored whole, never in place of an own measurement."""

import csv
import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from memgap.advisor import verify
from memgap.advisor.files import read_verifications
from memgap.advisor.report import advice_for, write_advice
from memgap.advisor.verify import NOT_MEASURED
from memgap.config.files import read_config_files
from memgap.errors import UserError
from memgap.recorded.__main__ import main
from memgap.recorded.compare import comparison
from memgap.recorded.export import TELEMETRY_ROWS, export
from memgap.recorded.files import all_points
from memgap.store.points import PointStore
from memgap.study.stop import Seen, choose
from memgap.study.study import Study
from memgap.tables.points import collect
from memgap.tables.provenance import provenance_line
from memgap.workflow import load_study
from tests.support.records import small_config
from tests.support.sessions import run_all

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILE = {"after_s": 0.1, "seconds": 0.2}


def config(**changes: Any) -> dict[str, Any]:
    """Return a study of two caps of a slow enough server."""
    return small_config(batch_cap=[2, 4], server={"step-base-ms": 15.0}, load={"requests": 24}, **changes)


def restored_study(recorded: Path, **changes: Any) -> Study:
    """Return the same study, drawn from recorded data."""
    return load_study({**config(**changes), "recorded": str(recorded)})


def test_a_study_goes_out_and_comes_back(tmp_path: Path) -> None:
    study = load_study(config(profile=PROFILE))
    run_all(study, tmp_path / "first")
    assert export(tmp_path / "first", tmp_path / "study") == 2
    assert export(tmp_path / "first", tmp_path / "study") == 2, "again changes nothing"
    assert len(list(all_points(tmp_path / "study"))) == 2
    said = run_all(restored_study(tmp_path / "study", profile=PROFILE), tmp_path / "second")
    assert "2 of 2 points from the recorded data" in said
    before, after = (
        collect(study.group_plan("small"), tmp_path / name / "points").drop(columns="source")
        for name in ("first", "second")
    )
    pd.testing.assert_frame_equal(before, after)
    folder = tmp_path / "second/points" / next(iter(study.points))
    assert 0 < len(pd.read_csv(folder / "telemetry.csv.gz")) <= TELEMETRY_ROWS
    assert pd.read_csv(folder / "kernels.csv.gz")["start_s"].max() < 0.05
    table = collect(study.group_plan("small"), tmp_path / "second/points")
    assert "recorded data" in provenance_line(table)


def test_recorded_commands_hold_no_path_of_the_machine(tmp_path: Path) -> None:
    run_all(load_study(config()), tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    for point in all_points(tmp_path / "study"):
        assert not any(part.startswith("/") for part in point["provenance"]["commands"][0])


def test_own_measurements_stay_and_are_compared(tmp_path: Path) -> None:
    study = load_study(config())
    run_all(study, tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    key = next(iter(study.points))
    own = PointStore(tmp_path / "first/points").read(key)
    run_all(restored_study(tmp_path / "study"), tmp_path / "first")
    assert PointStore(tmp_path / "first/points").read(key) == own
    found = comparison(tmp_path / "first", tmp_path / "study")
    assert len(found) == 2
    assert found["total_throughput_tok_s_ratio"].tolist() == [1.0, 1.0]
    run_all(restored_study(tmp_path / "study"), tmp_path / "second")
    assert comparison(tmp_path / "second", tmp_path / "study").empty, "restored points are no measurement"


def test_measuring_replaces_what_was_restored(tmp_path: Path) -> None:
    run_all(load_study(config()), tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    run_all(restored_study(tmp_path / "study"), tmp_path / "second")
    said = run_all(load_study(config()), tmp_path / "second")
    assert "2 points to measure" in said
    assert all("recorded" not in json.loads(path.read_text()) for path in (tmp_path / "second").rglob("point.json"))


def advised_config(recorded: Path | None) -> dict[str, Any]:
    """Return the small study with an advice that is verified, measured or from recorded data."""
    advisor = {"slo": {"ms": 100.0}, "verify": True}
    return {
        **config(),
        "advisor": advisor,
        "figures": {"fig02": {"sweep": "small"}},
        "recorded": str(recorded) if recorded else None,
    }


def written_advice(folder: Path, study: Study) -> Path:
    """Write the advice of a measured study; returns its file."""
    advice = advice_for(collect(study.group_plan("small"), folder / "points"), "tiny-opt", study.config["advisor"])
    # the simulated engine sizes its pool by other flags than the advice names
    advice["server_args"] = {name: value for name, value in advice["server_args"].items() if "memory" not in name}
    (folder / "advice.yaml").write_text(write_advice(advice))
    return folder / "advice.yaml"


def run_script(script: str, *arguments: object) -> None:
    """Run an entry point of the workflow to its end."""
    command = [sys.executable, str(CHECKOUT / "workflow/scripts" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def verified(folder: Path, recorded: Path, advice: Path) -> dict[str, Any]:
    """Return the verification as the workflow draws it from recorded data into a results folder."""
    snapshot = folder / "config.json"
    folder.mkdir(exist_ok=True)
    snapshot.write_text(json.dumps(load_study(advised_config(recorded)).config))
    files = [*("--out", folder / "verified.yaml"), *("--html", folder / "verified.html")]
    run_script(
        "verify_advice.py", "--config", snapshot, "--name", "tiny-opt", "--advice", advice, "--results", folder, *files
    )
    (found,) = read_verifications([folder / "verified.yaml"]).values()
    assert found["sentence"] in html.unescape((folder / "verified.html").read_text())
    return found


def test_a_verification_is_planned_measured_elsewhere_recorded_and_drawn(tmp_path: Path) -> None:
    study = load_study(advised_config(None))
    run_all(study, tmp_path / "sweep")
    export(tmp_path / "sweep", tmp_path / "study")
    advice = written_advice(tmp_path / "sweep", study)

    without = verified(tmp_path / "before", tmp_path / "study", advice)
    assert without["holds"] is None
    assert without["sentence"] == NOT_MEASURED

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(advised_config(tmp_path / "study"), sort_keys=False))
    asked = [*("--configfile", tmp_path / "config.yaml"), *("--model", "tiny-opt"), *("--advice", advice)]
    made = [*("--plan", tmp_path / "plan.json"), *("--results", tmp_path / "gpu")]
    assert verify.main(list(map(str, [*asked, *made]))) == 0
    run_script("run_session.py", "--plan", tmp_path / "plan.json", "--results", tmp_path / "gpu")
    assert export(tmp_path / "gpu", tmp_path / "study") == 1
    assert len(list(all_points(tmp_path / "study"))) == 3

    found = verified(tmp_path / "after", tmp_path / "study", advice)
    assert found["holds"] in (True, False)
    assert found["predicted_and_measured"]["total_throughput_tok_s"]["measured"] > 0
    (point,) = (json.loads(path.read_text()) for path in (tmp_path / "after/points").glob("*/point.json"))
    assert point["recorded"] == {"study": "study"}, "nothing was measured again"
    assert point["record"]["server"]["args"]["max-num-seqs"] == found["b_opt"]


def test_what_cannot_be_planned_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(advised_config(None), sort_keys=False))
    nothing = {"model": "tiny-opt", "b_opt": None, "candidates": [], "rule": {}}
    (tmp_path / "advice.yaml").write_text(yaml.safe_dump(nothing))
    asked = ["--configfile", str(tmp_path / "config.yaml"), "--plan", str(tmp_path / "plan.json")]
    assert verify.main([*asked, "--model", "tiny-opt", "--advice", str(tmp_path / "advice.yaml")]) == 2
    assert "nothing was advised for tiny-opt" in capsys.readouterr().err
    assert verify.main([*asked, "--model", "large", "--advice", str(tmp_path / "advice.yaml")]) == 2
    assert "unknown verification 'large'" in capsys.readouterr().err


def test_the_comparison_prints_a_row_for_each_point_measured_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("old", "new"):
        run_all(load_study(config()), tmp_path / name)
    export(tmp_path / "old", tmp_path / "study")
    assert main(["compare", "--results", str(tmp_path / "new"), "--recorded", str(tmp_path / "study")]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert sorted(row["batch_cap"] for row in rows) == ["2", "4"]
    assert all(float(row["total_throughput_tok_s_ratio"]) > 0 for row in rows)
    assert "# 2 points, median throughput" in printed.err
    run_all(restored_study(tmp_path / "study"), tmp_path / "third")
    assert main(["compare", "--results", str(tmp_path / "third"), "--recorded", str(tmp_path / "study")]) == 0
    assert "no own measurement" in capsys.readouterr().out
    assert main(["compare", "--results", str(tmp_path), "--recorded", str(tmp_path / "none")]) == 2
    assert "no folder with recorded data" in capsys.readouterr().err


def test_a_missing_folder_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder with recorded data"):
        run_all(restored_study(tmp_path / "nothing"), tmp_path / "results")
    study = restored_study(tmp_path)
    (tmp_path / f"{next(iter(study.sessions))}.jsonl").write_text("{oops\n")
    with pytest.raises(UserError, match="line 1: no recorded point"):
        run_all(study, tmp_path / "results")


def test_the_recorded_study_has_every_point_of_its_configuration() -> None:
    """A change of what a point's record holds changes its key, and then the recorded data have to follow."""
    study = load_study(read_config_files([CHECKOUT / "config/recorded.yaml"]))
    recorded = {point["key"]: point for point in all_points(CHECKOUT / "recorded/h200")}
    for session in study.sessions:
        plan = study.session_plan(session)
        seen = {key: Seen.of(point) for key, point in recorded.items()}
        assert choose(plan["points"], plan["stop"], seen, {}).wanted == []
    for point in recorded.values():
        assert point["status"] == "ok"
        assert point["hardware"]["gpu_name"] == "NVIDIA H200"
        assert point["provenance"]["git_commit"] and "dirty" not in point["provenance"]["git_commit"]
        assert point["engine"]["version"] == "0.26.0"
    assert yaml.safe_load((CHECKOUT / "config/recorded.yaml").read_text())["recorded"] == "recorded/h200"
