"""The commands behind a stored point: printed for a shell, without secrets, and run again."""

import json
import shlex
from pathlib import Path

import pytest

from memgap.cli import main
from memgap.commands.rerun import print_commands, rerun_plan
from memgap.errors import UserError
from memgap.recorded.files import all_points
from memgap.store.points import PointStore
from tests.support.records import small_study
from tests.support.sessions import run_session

FIXED = {"batch_cap": 2, "env": {"MARK": "a b;c"}}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(run_session(small_study(**FIXED), tmp_path)["key"])


def test_the_server_s_command_is_printed_for_a_shell(measured: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", measured]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    words = shlex.split(lines[0])
    assert words[0] == "env"
    assert "MARK=a b;c" in words
    assert "MEMGAP_MOCK_API_KEY=KEY" in words
    stored = PointStore(Path("results/points")).read(measured)
    assert stored is not None
    assert words[-len(stored["provenance"]["commands"][0]) :] == stored["provenance"]["commands"][0]
    assert shlex.split(lines[1])[-2:] == ["results", "--measure"]


def test_a_point_is_measured_again_as_often_as_asked(measured: str) -> None:
    path = Path("results/points") / measured / "point.json"
    for _ in range(2):
        before = json.loads(path.read_text())
        assert main(["rerun", measured, "--measure"]) == 0
        after = json.loads(path.read_text())
        assert after["window"]["start_unix_s"] > before["window"]["end_unix_s"]
        assert after["record"] == before["record"]
        assert after["remeasured_for"] == before["remeasured_for"]


def test_an_unknown_key_and_a_lost_plan_are_one_sentence(measured: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", "0" * 16]) == 2
    assert "there is no point '0000000000000000'" in capsys.readouterr().err
    assert main(["rerun", "../../etc"]) == 2
    for plan in Path("results/plans").glob("*.json"):
        plan.unlink()
    with pytest.raises(UserError, match="no plan in results/plans names the point"):
        rerun_plan(measured, Path("results"))


def test_the_command_of_a_static_batch_is_shown_without_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Path(__file__).parents[2] / "recorded" / "h200-hf"
    point = next(one for one in all_points(recorded) if one["record"]["load"]["arrival"] == "static")
    PointStore(tmp_path / "points").write(point["key"], point, {})
    print_commands(point["key"], tmp_path)
    told = capsys.readouterr().out
    assert "the worker reads what it measures" in told
    assert "--spec" in told
