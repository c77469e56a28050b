"""Kernel timelines: read from traces, joined over replicas, measured by a session."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memgap.kinds.offline.profilers import profiler_of
from memgap.profiling import kept
from memgap.profiling.kept import kept_traces
from memgap.profiling.kernel_trace import read_kernels
from memgap.profiling.overlap import length_s, shares, union
from tests.support.records import small_study
from tests.support.sessions import run_session


def write_trace(folder: Path, base_ns: int, events: list[dict[str, Any]]) -> None:
    """Write a trace as torch.profiler does."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = {"schemaVersion": 1, "baseTimeNanoseconds": base_ns, "traceEvents": events}
    (folder / "worker.pt.trace.json.gz").write_bytes(gzip.compress(json.dumps(trace).encode()))


def kernel(ts_us: float, dur_us: float, name: str = "gemm", **changes: Any) -> dict[str, Any]:
    """Return a kernel event."""
    return {"ph": "X", "cat": "kernel", "name": name, "ts": ts_us, "dur": dur_us, "args": {"stream": 7}, **changes}


def test_traces_of_replicas_share_one_clock(tmp_path: Path) -> None:
    others = [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 9}, {"ph": "M", "name": "process_name"}]
    write_trace(tmp_path / "a", 1_000_000_000, [kernel(5, 10), *others])
    write_trace(tmp_path / "b", 1_000_002_000, [kernel(1, 4, cat="gpu_memcpy", name="Memcpy DtoH")])
    first, second = read_kernels([tmp_path / "a", tmp_path / "b"])
    assert (first.replica, first.name, first.stream) == (2, "Memcpy DtoH", 7)
    assert (first.start_s, first.duration_s) == pytest.approx((0.0, 4e-6))
    assert (second.replica, second.start_s) == (1, pytest.approx(2e-6))


def test_no_trace_gives_no_kernels_and_a_broken_one_is_told(tmp_path: Path) -> None:
    assert read_kernels([tmp_path / "none"]) == []
    (tmp_path / "a.json").write_text('{"oops": 1}')
    with pytest.raises(ValueError, match=r"a\.json is no trace"):
        read_kernels([tmp_path])


def test_shares_of_a_window() -> None:
    first = np.array([[0.0, 4.0], [3.0, 5.0], [9.0, 20.0]])
    second = np.array([[4.0, 6.0]])
    assert union(first).tolist() == [[0.0, 5.0], [9.0, 20.0]]
    assert length_s(first) == 16.0
    found = shares({1: first, 2: second}, 0.0, 10.0)
    assert found["replica1_busy_fraction"] == pytest.approx(0.6)
    assert found["replica2_busy_fraction"] == pytest.approx(0.2)
    assert found["busy_fraction"] == pytest.approx(0.7)
    assert found["overlap_fraction"] == pytest.approx(0.1)
    assert shares({1: np.empty((0, 2))}, 0.0, 1.0)["busy_fraction"] == 0.0


def test_a_profiled_point_keeps_its_kernels_and_says_that_its_rates_do_not_count(tmp_path: Path) -> None:
    study = small_study(
        server={"step-base-ms": 20.0},
        replicas=2,
        batch_cap=[4],
        load={"requests": 32, "warmup_requests": 1},
        profile={"after_s": 0.2, "seconds": 0.2, "keep": True},
    )
    point = run_session(study, tmp_path)
    assert point["profile"]["traces"] == ["trace-1.json.gz", "trace-2.json.gz"]
    for name in point["profile"]["traces"]:
        trace = json.loads(gzip.decompress((tmp_path / "results/points" / point["key"] / name).read_bytes()))
        assert trace["traceEvents"]
    assert point["status"] == "ok"
    assert point["profile"]["error"] is None
    assert "profiled" in point["flags"]
    assert point["verdict"]["verdict"] == "invalid"
    kernels = pd.read_csv(tmp_path / "results/points" / point["key"] / "kernels.csv.gz")
    assert set(kernels["replica"]) == {1, 2}
    assert kernels["start_s"].min() == 0.0
    assert kernels["duration_s"].median() == pytest.approx(0.016)
    assert 5 <= len(kernels) <= 40


def test_of_kept_traces_only_so_much_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefill.trace.json").write_text("{}")
    (tmp_path / "decode.trace.json.gz").write_bytes(gzip.compress(b"{}"))
    names = {"trace-1": tmp_path / "prefill.trace.json", "trace-2": tmp_path / "decode.trace.json.gz"}
    files, said = kept_traces(names)
    assert [gzip.decompress(data) for data in files.values()] == [b"{}", b"{}"]
    assert said == {"traces": ["trace-1.json.gz", "trace-2.json.gz"]}
    monkeypatch.setattr(kept, "MOST_BYTES", 30)
    files, said = kept_traces({**names, "gone": tmp_path / "gone"})
    assert said["traces"] == list(files) == ["trace-1.json.gz"]
    assert "decode.trace.json.gz of 0 MiB is beyond" in said["traces_left_out"] and "gone" in said["traces_left_out"]
    assert set(profiler_of({"source": "torch", "keep": True}, []).kept(tmp_path)[0]) == {"trace-decode.json.gz"}
    assert profiler_of({"source": "torch"}, []).kept(tmp_path) == ({}, {})


def test_without_keep_a_profile_has_the_key_that_it_had() -> None:
    moment = {"after_s": 0.2, "seconds": 0.2}
    plain, told = (list(small_study(profile=one).points) for one in (moment, {**moment, "keep": False}))
    assert plain == told


def test_a_load_that_ends_before_its_moment_says_so(tmp_path: Path) -> None:
    point = run_session(small_study(batch_cap=[4], profile={"after_s": 60, "seconds": 0.1}), tmp_path)
    assert point["status"] == "ok"
    assert "before the profiler was to start" in point["profile"]["error"]
