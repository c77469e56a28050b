"""Writes that are cut short are never seen, and what is no point is never taken for one."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from memgap.errors import UserError
from memgap.store import atomic
from memgap.store.atomic import write_bytes, write_text
from memgap.store.points import PointStore, csv_gz
from tests.support.records import small_study, store_point


def record() -> dict[str, Any]:
    """Return a real record."""
    return next(iter(small_study().points.values())).record


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.txt"
    write_text(path, "é")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(path.parent) == ["c.txt"]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.txt"
    write_text(path, "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_a_first_write_that_fails_leaves_nothing_visible(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store_point(tmp_path, record(), {"duration_s": float("nan")})
    assert list(PointStore(tmp_path).stored_keys()) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_not_listed(tmp_path: Path) -> None:
    key = store_point(tmp_path, record(), {})
    (tmp_path / f".{key}.abcd").mkdir()
    assert list(PointStore(tmp_path).stored_keys()) == [key]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"key": "0" * 16},
        {"record": {}},
        {"record": None},
        {"record": {"x": float("nan")}},
        {"status": ...},
    ],
    ids=["schema", "key", "record", "no record", "nan", "no status"],
)
def test_a_point_that_is_not_this_one_is_garbled(tmp_path: Path, change: dict[str, Any]) -> None:
    key = store_point(tmp_path, record(), {})
    path = tmp_path / key / "point.json"
    point = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({name: value for name, value in point.items() if value is not ...}))
    store = PointStore(tmp_path)
    assert store.status(key) == "garbled"
    with pytest.raises(UserError, match=r"not a whole point of this key; delete .* to measure") as caught:
        store.read(key)
    assert "\n" not in str(caught.value)


def test_a_truncated_point_is_garbled_at_any_length(tmp_path: Path) -> None:
    key = store_point(tmp_path, record(), {"duration_s": 1.0})
    path = tmp_path / key / "point.json"
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        path.write_bytes(whole[:length])
        assert PointStore(tmp_path).status(key) == "garbled"


def test_a_file_or_an_empty_folder_in_the_points_place(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    (tmp_path / ("a" * 16)).write_text("")
    (tmp_path / ("b" * 16)).mkdir()
    assert store.status("a" * 16) == "garbled"
    assert store.status("b" * 16) == "missing"
    assert store.status("c" * 16) == "missing"
    assert store.read("c" * 16) is None


def test_a_garbled_point_is_replaced_with_all_its_files(tmp_path: Path) -> None:
    key = store_point(tmp_path, record(), {})
    (tmp_path / key / "point.json").write_text("{")
    (tmp_path / key / "stale.csv").write_text("")
    store_point(tmp_path, record(), {"duration_s": 3.0})
    assert PointStore(tmp_path).status(key) == "ok"
    assert names(tmp_path / key) == ["point.json"]


def test_a_gzipped_table_reads_back() -> None:
    rows = [{"a": 0.1234567891234, "b": None, "other": 1}, {"a": 2}, {"b": 'x,"y"\n'}]
    text = gzip.decompress(csv_gz(rows, ["a", "b"])).decode()
    assert list(csv.DictReader(text.splitlines(keepends=True))) == [
        {"a": "0.123456789", "b": ""},
        {"a": "2", "b": ""},
        {"a": "", "b": 'x,"y"\n'},
    ]
    assert gzip.decompress(csv_gz([], ["a"])) == b"a\n"
