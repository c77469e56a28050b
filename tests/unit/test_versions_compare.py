"""`memgap compare`: what is paired, what is refused, and the exit status for a build."""

from pathlib import Path
from typing import Any

import pytest

from memgap.cli import main
from memgap.errors import UserError
from memgap.versions.compare import OPEN, PASSED, WORSE, compared, gate
from memgap.versions.sides import read_side
from tests.support.records import small_study, store_point


def measured(folder: Path, engine: str = "mock", faster: float = 1.0, blocks: int = 3, **changes: Any) -> Path:
    """Store a sweep's points, `faster` than others of their block, in a results folder; returns it."""
    for point in small_study().points.values():
        for block in range(blocks):
            record = {**point.record, "repeat": block, "engine": {**point.record["engine"], "name": engine}}
            step_ms = (10 + block + point.record["batch_cap"]) * (1 + 0.001 * (block - 1) * (faster > 1)) / faster
            summary = {"tpot_mean_ms": step_ms, "request_throughput_req_s": 100 / step_ms}
            store_point(folder / "points", record, summary, **changes)
    return folder


@pytest.mark.parametrize(
    ("faster", "verdict", "status"), [(1.1, "faster", 0), (1.0, "equal", 0), (1 / 1.1, "slower", 1)]
)
def test_blocks_are_paired_and_the_gate_says_so(tmp_path: Path, faster: float, verdict: str, status: int) -> None:
    a, b = measured(tmp_path / "a"), measured(tmp_path / "b", "other", faster)
    lines = compared(read_side(str(a)), read_side(str(b)), 0.02)
    assert [(line.verdict, line.blocks) for line in lines] == [(verdict, 3)] * 6
    assert lines[0].ratio == pytest.approx(faster, rel=1e-3)
    assert main(["compare", str(a), str(b), "--gate"]) == status == gate(lines)
    assert main(["compare", str(a), str(b)]) == 0


def test_two_engines_of_one_folder(tmp_path: Path) -> None:
    measured(measured(tmp_path, "v1"), "v2", 1.1)
    assert {line.verdict for line in compared(read_side(f"{tmp_path}@v1"), read_side(f"{tmp_path}@v2"), 0.02)} == {
        "faster"
    }
    with pytest.raises(UserError, match="no points of an engine 'v3'; it has v1, v2"):
        read_side(f"{tmp_path}@v3")


def test_what_cannot_be_compared_is_a_row_with_the_reason(tmp_path: Path) -> None:
    a = read_side(str(measured(tmp_path / "a")))
    refusing = measured(tmp_path / "b", status="bad_config", error={"kind": "bad_config", "message": "no such flag"})
    elsewhere = measured(tmp_path / "c", hardware={"gpu_name": "Other", "cpu_model": "x"})
    for folder, reason in ((refusing, "bad_config: no such flag"), (elsewhere, "other machines")):
        lines = compared(a, read_side(str(folder)), 0.02)
        assert {line.verdict for line in lines} == {"refused"}
        assert lines[0].reason.startswith(reason)
        assert gate(lines) == OPEN
    one = compared(a, read_side(str(measured(tmp_path / "d", blocks=1))), 0.02)
    assert {(line.verdict, line.low) for line in one} == {("undecided", None)}


def test_rows_with_the_same_settings_are_paired_among_others(tmp_path: Path) -> None:
    measured(tmp_path, "v1")
    measured(tmp_path, "v2", 1.1)
    point = next(iter(small_study(server={"step-base-ms": 9.0}).points.values()))
    other = {**point.record, "engine": {**point.record["engine"], "name": "v2"}}
    store_point(tmp_path / "points", other, {}, "bad_config")
    lines = compared(read_side(f"{tmp_path}@v1"), read_side(f"{tmp_path}@v2"), 0.02)
    assert {line.verdict for line in lines} == {"faster"}


def test_nothing_alike_is_one_sentence(tmp_path: Path) -> None:
    a = measured(tmp_path / "a")
    point = next(iter(small_study(load={"requests": 7}).points.values()))
    store_point(tmp_path / "b" / "points", point.record, {"tpot_mean_ms": 1.0})
    with pytest.raises(UserError, match="measured nothing alike"):
        compared(read_side(str(a)), read_side(str(tmp_path / "b")), 0.02)
    with pytest.raises(UserError, match="has no points"):
        read_side(str(tmp_path / "empty"))
    assert (PASSED, WORSE) == (0, 1)


def test_csv_has_a_row_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = measured(tmp_path)
    main(["compare", str(a), str(a), "--format", "csv", "--metric", "tpot_mean_ms"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("cell,metric,a,b,ratio,low,high,blocks,verdict")
    assert len(rows) == 3
