"""What every kind of measurement does alike: it is listed, run again, recorded, tied to its engine's version, judged by
what was seen, and no state of a point goes unsaid.

`tests/support/kinds.py` has one small study of each kind.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from memgap import cli
from memgap.kinds.registry import kind_of
from memgap.recorded.__main__ import main as recorded_main
from memgap.store.points import PointStore
from memgap.study.plan import plan_of
from tests.support.kinds import KINDS, Bench, MeasuredKind
from tests.support.loadtests import needs_locust

FAILED = {"kind": "oom", "message": "out of memory", "log_tail": "the end"}


def kinds(among: Callable[[MeasuredKind], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Parametrise over the kinds."""
    cases = [
        pytest.param(one, id=one.name, marks=[needs_locust] if one.name == "locust" else [])
        for one in KINDS
        if among(one)
    ]
    return pytest.mark.parametrize("kind", cases)


class Measured:
    """Runs each kind once, beside a neighbour on the GPU, when the first test asks for it."""

    def __init__(self, folder: Path, neighbour: int) -> None:
        self.neighbour = neighbour
        self._folder = folder
        self._ran: dict[str, tuple[Bench, str]] = {}

    def __call__(self, kind: MeasuredKind) -> tuple[Bench, str]:
        """Return the bench of a kind, and what was printed when it was run."""
        if kind.name not in self._ran:
            folder = self._folder / kind.name
            folder.mkdir(exist_ok=True)
            bench = kind.bench(folder, neighbour=self.neighbour)
            self._ran[kind.name] = bench, bench.run()
        return self._ran[kind.name]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Return what runs a kind, once in this module. The neighbour is no process that measures, as this one may be."""
    with subprocess.Popen(["sleep", "infinity"]) as neighbour:
        yield Measured(tmp_path_factory.mktemp("kinds"), neighbour.pid)
        neighbour.kill()


@kinds()
def test_its_points_are_listed(kind: MeasuredKind, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    bench, _ = measured(kind)
    asked = [*("--configfile", str(bench.folder / "config.yaml")), *("--results", str(bench.results))]
    assert cli.main(["list", *asked, "--format", "json"]) == 0
    states = {row["key"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert bench.points()
    assert {point["key"]: states.get(point["key"]) for point in bench.points()} == {
        point["key"]: "ok" for point in bench.points()
    }


@kinds()
def test_the_commands_behind_a_point_are_printed(
    kind: MeasuredKind, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, _ = measured(kind)
    for point in bench.points():
        assert cli.main(["rerun", point["key"], "--results", str(bench.results)]) == 0
        printed = capsys.readouterr().out
        assert f"rerun {point['key']}" in printed
        for command in point["provenance"]["commands"]:
            assert command[2] in printed, "the module that was run"


@kinds()
def test_a_point_is_measured_again(kind: MeasuredKind, measured: Measured) -> None:
    bench, _ = measured(kind)
    before = bench.points()[0]
    path = bench.results / "points" / before["key"] / "point.json"
    written_ns = path.stat().st_mtime_ns
    command = [sys.executable, "-m", "memgap", "rerun", before["key"], "--results", str(bench.results), "--measure"]
    assert subprocess.run(command, check=False, env=dict(bench.environment)).returncode == 0
    (after,) = [point for point in bench.points() if point["key"] == before["key"]]
    assert path.stat().st_mtime_ns > written_ns
    assert (after["status"], after["record"]) == ("ok", before["record"])


@kinds()
def test_what_is_recorded_comes_back(kind: MeasuredKind, measured: Measured, tmp_path: Path) -> None:
    from memgap.recorded.load import restore

    bench, _ = measured(kind)
    asked = ["--results", str(bench.results), "--recorded", str(tmp_path / "recorded")]
    assert recorded_main(["export", *asked]) == 0
    store = PointStore(tmp_path / "again")
    before = {point["key"]: kind_of(point["record"]).restored(point) for point in bench.points()}
    for path in (tmp_path / "recorded").glob("*.jsonl"):
        restore(tmp_path / "recorded", path.stem, list(before), store)
    after = {key: store.read(key) or {} for key in before}
    for name in ("record", "status", "summary", "verdict", "flags", "engine", "hardware", "window"):
        assert {key: one.get(name) for key, one in after.items()} == {key: one.get(name) for key, one in before.items()}
    assert all(one["recorded"] == {"study": "recorded"} for one in after.values())


@kinds()
def test_a_neighbour_on_the_gpu_is_told_before(kind: MeasuredKind, measured: Measured) -> None:
    _, printed = measured(kind)
    assert f"already on the GPU: process {measured.neighbour} (" in printed


@kinds()
def test_it_is_judged_by_what_was_seen(kind: MeasuredKind, measured: Measured) -> None:
    """A neighbour was on the GPU, so that a point that is valid was not judged."""
    bench, _ = measured(kind)
    for point in bench.points():
        assert point["status"] == "ok"
        assert point["verdict"]["verdict"] == "invalid"
        assert "foreign_processes" in [reason["check"] for reason in point["verdict"]["reasons"]]
        assert "foreign_processes" in point["flags"]


@kinds()
def test_another_version_of_its_engine_is_refused(kind: MeasuredKind, tmp_path: Path) -> None:
    bench = kind.bench(tmp_path, version="9.9.9")
    printed = bench.run(expect=2)
    (said,) = [line for line in printed.splitlines() if line.startswith("memgap: ")]
    assert "the points belong to" in said and "9.9.9" in said
    assert bench.points() == []


@kinds(among=lambda kind: kind.table is not None)
def test_every_state_of_a_point_is_in_its_table_and_under_its_figure(
    kind: MeasuredKind, measured: Measured, tmp_path: Path
) -> None:
    whole = measured(kind)[0].points()[0]
    study = kind.bench(tmp_path, **kind.many).study
    entries = plan_of(study, "group", kind.group)["points"]
    states = ["ok", "garbled", "oom", "missing", *(["not_needed"] if kind.has_stop_rules else [])]
    chosen = dict(zip([entry["key"] for entry in entries], states, strict=False))
    shutil.copytree(measured(kind)[0].results / "points" / whole["key"], tmp_path / "measured")
    store, files = PointStore(tmp_path / "results/points"), contents(tmp_path / "measured")
    for entry in entries:
        state = chosen.get(entry["key"], "ok")
        error = FAILED if state == "oom" else None
        point = {**whole, "key": entry["key"], "record": entry["record"], "status": state, "error": error}
        if state in ("ok", "garbled", "oom"):
            store.write(entry["key"], {**point, "verdict": {**point["verdict"], "verdict": "valid"}}, files)
        if state == "garbled":
            (store.folder / entry["key"] / "point.json").write_text("{")
        if state == "not_needed":
            spare(tmp_path / "results", entry)
    assert kind.table is not None
    table = kind.table(study, kind.group, store.folder)
    told = dict(zip(table["key"], table["status"], strict=True))
    assert {key: told[key] for key in chosen} == chosen
    note = kind.note(table)
    for state in ("garbled", "oom", "missing"):
        assert state in note


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a stored point beside its document."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "point.json"}


def spare(results: Path, entry: Mapping[str, Any]) -> None:
    """Write the outcome of a session whose stop rule spared a point."""
    outcome = {
        "session": entry["session"],
        "points": [{"key": entry["key"], "status": "not_needed", "reason": "the answer is known"}],
    }
    path = results / "sessions" / f"{entry['session']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(outcome))
