"""A stored point is whole or absent."""

from pathlib import Path

import pytest

from memgap.canonical import canonical_json, content_key
from memgap.errors import UserError
from memgap.store import atomic
from memgap.store.points import PointStore, csv_gz
from tests.support.records import small_study, store_point


@pytest.fixture
def record() -> dict[str, object]:
    """Return a real record."""
    return next(iter(small_study().points.values())).record


def test_a_point_is_read_back_and_replaced(tmp_path: Path, record: dict[str, object]) -> None:
    key = store_point(tmp_path, record, {"duration_s": 1.0})
    assert PointStore(tmp_path).read(key)["summary"] == {"duration_s": 1.0}  # type: ignore[index]
    store_point(tmp_path, record, {"duration_s": 2.0}, status="oom")
    store = PointStore(tmp_path)
    assert store.status(key) == "oom"
    assert list(store.stored_keys()) == [key]
    assert [path.name for path in tmp_path.iterdir()] == [key]


@pytest.mark.parametrize("damage", ["", "{", '{"key": 1}', "[]", "\udcff"])
def test_damage_is_seen(tmp_path: Path, record: dict[str, object], damage: str) -> None:
    key = store_point(tmp_path, record, {})
    (tmp_path / key / "point.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    store = PointStore(tmp_path)
    assert store.status(key) == "garbled"
    with pytest.raises(UserError, match=f"delete {tmp_path / key} to measure the point again"):
        store.read(key)


def test_a_point_under_a_foreign_key_is_refused(tmp_path: Path, record: dict[str, object]) -> None:
    key = store_point(tmp_path, record, {})
    (tmp_path / key).rename(tmp_path / ("0" * 16))
    assert PointStore(tmp_path).status("0" * 16) == "garbled"


def test_a_failed_write_leaves_the_old_point(
    tmp_path: Path, record: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store_point(tmp_path, record, {"duration_s": 1.0})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store_point(tmp_path, record, {"duration_s": 2.0})
    assert PointStore(tmp_path).read(key)["summary"] == {"duration_s": 1.0}  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == [key]


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "points").write_text("")
    with pytest.raises(UserError, match="cannot write below"):
        PointStore(tmp_path / "points").require_writable()


def test_canonical_json_ignores_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1, "x"]}) == '{"a":[1,"x"],"b":1}'
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_csv_is_the_same_bytes_every_time() -> None:
    rows = [{"a": 1.5, "b": None, "other": 1}, {"a": 2}]
    assert csv_gz(rows, ["a", "b"]) == csv_gz(rows, ["a", "b"])
