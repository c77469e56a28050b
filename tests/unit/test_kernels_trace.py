"""Traces of torch.profiler: kernels and the steps that launched them."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.errors import UserError
from memgap.profiling.kernel_trace import read_kernels
from memgap.profiling.timeline import COLUMNS, class_table, phase_and_step, timeline_table, unclassified_share
from memgap.profiling.torch_trace import read_trace
from tests.support.profiles import EVENTS


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    """Write a trace, gzipped where the name says so."""
    data = json.dumps({"schemaVersion": 1, "traceEvents": events}).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_kernels_belong_to_the_steps_that_launched_them(tmp_path: Path, name: str) -> None:
    found = read_trace(write(tmp_path / name, EVENTS))
    table = found.kernels
    assert list(table.columns) == list(COLUMNS)
    assert table["phase"].tolist() == ["prefill", "decode", "decode", "", "decode"]
    assert table["step"].tolist()[:3] == [0, 3, 3]
    assert table["start_s"].tolist() == pytest.approx([60e-6, 160e-6, 165e-6, 180e-6, 200e-6])
    assert table["stream"].tolist() == [7, 7, 8, 7, 7]
    assert set(table["source"]) == {"torch"}
    assert found.windows["name"].tolist() == ["PrefillStep0", "DecodeStep3"]
    assert found.windows["end_s"].tolist() == pytest.approx([50e-6, 140e-6])


def test_categories_of_earlier_versions_are_known(tmp_path: Path) -> None:
    """PyTorch 1.11 and before wrote Kernel, Memcpy and Runtime."""
    earlier = {"kernel": "Kernel", "gpu_memcpy": "Memcpy", "gpu_memset": "Memset", "cuda_runtime": "Runtime"}
    old = [{**one, "cat": earlier.get(one.get("cat", ""), one.get("cat"))} for one in EVENTS]
    now = read_trace(write(tmp_path / "now.json", EVENTS))
    then = read_trace(write(tmp_path / "then.json", old))
    assert then.kernels.equals(now.kernels) and len(then.kernels)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "x.pt.trace.json", old)
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "x.pt.trace.json", EVENTS)
    assert read_kernels([tmp_path / "a"]) == read_kernels([tmp_path / "b"]) != []


def test_shares_by_class(tmp_path: Path) -> None:
    table = read_trace(write(tmp_path / "a.json", EVENTS)).kernels
    decode = class_table(table).query("phase == 'decode'")
    assert decode["kernel_class"].tolist() == ["attention", "unclassified", "memory"]
    assert decode["gpu_s"].tolist() == pytest.approx([10e-6, 10e-6, 2e-6])
    assert decode["busy_s"].tolist() == pytest.approx([17e-6] * 3)
    assert unclassified_share(table) == pytest.approx(10 / 53)
    assert pd.isna(unclassified_share(timeline_table([])))


def test_a_trace_of_a_cpu_is_empty_with_a_reason(tmp_path: Path) -> None:
    found = read_trace(
        write(tmp_path / "a.json", [one for one in EVENTS if one.get("cat") in ("cpu_op", "user_annotation")])
    )
    assert found.kernels.empty and list(found.kernels.columns) == list(COLUMNS)
    assert "no kernels" in found.reason
    assert len(found.windows) == 2


def test_names_of_steps() -> None:
    assert phase_and_step("DecodeStep12") == ("decode", 12)
    assert phase_and_step("PrefillStep0") == ("prefill", 0)
    assert phase_and_step("Decode") is phase_and_step("DecodeStep") is phase_and_step("xDecodeStep1") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\1\2",
        b"[]",
        b'{"oops": 1}',
        b'{"traceEvents": 3}',
        b'{"traceEvents": [3]}',
        b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "a", "ts": "soon", "dur": 1}]}',
        b'{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1, "dur": 1}]}',
        gzip.compress(b'{"traceEvents": []}')[:-6],
        b"\x1f\x8b nothing zipped",
    ],
)
def test_what_is_no_trace_is_told_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="not a whole trace") as caught:
        read_trace(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", [{"ts": math.nan}, {"dur": math.inf}, {"ts": "soon"}, {"dur": None}, {"dur": -1}])
def test_an_event_without_times_is_left_out_and_counted(tmp_path: Path, odd: dict[str, Any]) -> None:
    whole = read_trace(write(tmp_path / "a.json", EVENTS))
    found = read_trace(write(tmp_path / "b.json", [*EVENTS, {**EVENTS[-1], "ph": "X", **odd}]))
    assert (len(found.kernels), found.left_out, whole.left_out) == (len(whole.kernels), 1, 0)
    folder = tmp_path / "replica"
    folder.mkdir()
    write(folder / "c.json.gz", [*EVENTS, {**EVENTS[-1], "ph": "X", **odd}])
    assert len(read_kernels([folder])) == len(whole.kernels)


def test_an_absent_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a whole trace"):
        read_trace(tmp_path / "none.json")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_or_scrambled_trace_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / data.draw(st.sampled_from(["cut.json", "cut.json.gz"]))
    content = write(path, EVENTS).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut] + data.draw(st.binary(max_size=10)))
    try:
        read_trace(path)
    except UserError as error:
        assert "\n" not in str(error)
