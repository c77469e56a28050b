"""Nsight Systems: its command lines, and databases made after the documented schema of its SQLite export."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.errors import UserError
from memgap.profiling.nsys import nsys_export_command, nsys_profile_command, read_gpu_metrics, read_nsys
from memgap.profiling.timeline import COLUMNS, class_table, unclassified_share
from tests.support.profiles import FLASH, SCHEMA, write_export


def test_kernels_belong_to_the_steps_that_launched_them(tmp_path: Path) -> None:
    found = read_nsys(write_export(tmp_path / "a.sqlite"))
    table = found.kernels
    assert list(table.columns) == list(COLUMNS)
    assert table["name"].tolist() == ["Memcpy HtoD", "Memset", FLASH, "nvjet_sm90_a", "nvjet_sm90_a", "nvjet_sm90_a"]
    assert table["kernel_class"].tolist() == ["memory", "memory", "attention", "matmul", "matmul", "matmul"]
    assert table["phase"].tolist() == ["decode"] * 5 + [""]
    assert table["step"].tolist()[:5] == [0, 0, 0, 1, 1]
    assert table["step"].isna().tolist() == [False] * 5 + [True]
    assert table["start_s"][0] == pytest.approx(3e-6)
    assert table["duration_s"][3] == pytest.approx(2e-6)
    assert found.reason == ""
    assert unclassified_share(table) == 0.0
    shares = class_table(table).set_index(["phase", "kernel_class"])
    assert shares.loc[("decode", "matmul"), "gpu_s"] == pytest.approx(3e-6)
    assert shares.loc[("decode", "matmul"), "busy_s"] == pytest.approx(0.2e-6 + 1e-6 + 2.5e-6)


def test_ranges_and_marks_with_text_or_text_id(tmp_path: Path) -> None:
    windows = read_nsys(write_export(tmp_path / "a.sqlite")).windows
    assert windows["name"].tolist() == ["Decode", "DecodingStart", "DecodeStep0", "DecodeStep1"]
    mark = windows.iloc[1]
    assert mark["start_s"] == mark["end_s"] == pytest.approx(0.1e-6)
    assert windows["step"].tolist()[2:] == [0, 1]


def test_gpu_metrics_are_fractions_on_the_same_clock(tmp_path: Path) -> None:
    table = read_gpu_metrics(write_export(tmp_path / "a.sqlite"))
    at = {
        (gpu, metric): value
        for gpu, metric, value in zip(table["gpu"], table["metric"], table["value_fraction"], strict=True)
    }
    assert at == {
        (0, "dram_read"): 0.4,
        (0, "dram_write"): 0.05,
        (0, "dram"): pytest.approx(0.45),
        (0, "warps"): 0.6,
        (1, "dram_read"): 0.2,
        (1, "dram"): 0.2,
    }
    assert table["time_s"].min() == pytest.approx(0.5e-6)


def test_absent_tables_mean_that_nothing_was_recorded(tmp_path: Path) -> None:
    bare = write_export(
        tmp_path / "a.sqlite", without=tuple(name for name in SCHEMA if name not in ("StringIds", "NVTX_EVENTS"))
    )
    found = read_nsys(bare)
    assert found.kernels.empty and list(found.kernels.columns) == list(COLUMNS)
    assert "no kernels" in found.reason
    assert len(found.windows) == 4
    assert read_gpu_metrics(bare).empty
    assert class_table(found.kernels).empty
    no_ranges = read_nsys(write_export(tmp_path / "b.sqlite", without=("NVTX_EVENTS",)))
    assert no_ranges.windows.empty and set(no_ranges.kernels["phase"]) == {""}


def test_without_launches_the_start_on_the_gpu_decides(tmp_path: Path) -> None:
    found = read_nsys(write_export(tmp_path / "a.sqlite", without=("CUPTI_ACTIVITY_KIND_RUNTIME",)))
    assert found.kernels["phase"].tolist() == ["decode", "decode", "", "", "", ""]
    assert found.kernels["step"].tolist()[:2] == [1, 1]


def test_another_schema_is_told_with_its_version(tmp_path: Path) -> None:
    path = write_export(
        tmp_path / "a.sqlite", CUPTI_ACTIVITY_KIND_KERNEL="start INTEGER, stop INTEGER, streamId INTEGER"
    )
    with pytest.raises(UserError, match=r"no column end \(schema version 3\.11\.0\)"):
        read_nsys(path)
    path = write_export(tmp_path / "b.sqlite", GPU_METRICS="timestamp INTEGER, wide TEXT")
    with pytest.raises(UserError, match="GPU_METRICS has no column typeId"):
        read_gpu_metrics(path)
    path = write_export(tmp_path / "c.sqlite", without=("META_DATA_EXPORT",), NVTX_EVENTS="start INTEGER, end INTEGER")
    with pytest.raises(UserError, match="NVTX_EVENTS has no column eventType;"):
        read_nsys(path)


def test_what_is_no_export_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no database at all, only some text that goes on for a while")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE mine (a)")
    database.close()
    for name, said in (
        ("empty", "no export"),
        ("text", "not a whole"),
        ("other", "no export"),
        ("none", "no such file"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            read_nsys(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_times_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    path = write_export(tmp_path / "a.sqlite")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = 'soon'")
    database.close()
    with pytest.raises(UserError, match="have no times"):
        read_nsys(path)


def test_events_and_samples_that_are_no_numbers_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_export(tmp_path / "a.sqlite")
    kernels, samples = len(read_nsys(path).kernels), len(read_gpu_metrics(path))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = NULL WHERE rowid = 1")
        database.execute("UPDATE GPU_METRICS SET value = 'x' WHERE rowid = 1")
        database.execute("UPDATE GPU_METRICS SET value = NULL WHERE rowid = 2")
    database.close()
    found = read_nsys(path)
    assert (len(found.kernels), found.left_out) == (kernels - 1, 1)
    assert 0 < len(read_gpu_metrics(path)) < samples


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("nsys") / "whole.sqlite")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_cut_or_scrambled_export_is_read_or_told(whole: Path, data: st.DataObject) -> None:
    content = whole.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    place = data.draw(st.integers(0, max(cut - 1, 0)))
    junk = data.draw(st.binary(max_size=30))
    damaged = whole.with_name("damaged.sqlite")
    damaged.write_bytes((content[:place] + junk + content[place + len(junk) :])[:cut])
    for read in (read_nsys, read_gpu_metrics):
        try:
            read(damaged)
        except UserError as error:
            assert "\n" not in str(error)


def test_the_command_lines() -> None:
    profile = nsys_profile_command(["python", "x.py"], Path("out/report"))
    assert profile[:2] == ["nsys", "profile"] and profile[-2:] == ["python", "x.py"]
    for option, value in {
        "--trace": "cuda,nvtx",
        "--cuda-graph-trace": "node",
        "--gpu-metrics-devices": "all",
        "--output": "out/report",
    }.items():
        assert profile[profile.index(option) + 1] == value
    assert "--gpu-metrics-devices" not in nsys_profile_command(["a"], Path("b"), gpu_metrics=False)
    assert nsys_export_command(Path("a.nsys-rep"), Path("a.sqlite")) == [
        *("nsys", "export", "--type", "sqlite", "--force-overwrite", "true", "--output", "a.sqlite", "a.nsys-rep"),
    ]
