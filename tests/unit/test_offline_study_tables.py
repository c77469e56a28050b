"""The tables of an offline study, from points in a store; and the device counters that feed them."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from memgap.errors import UserError
from memgap.kinds.offline.gpu_counters import GpmSampler, phase_means
from memgap.kinds.offline.steps import COLUMNS, SEGMENTS
from memgap.kinds.offline.summary import summarize_steps
from memgap.kinds.offline.tables import (
    offline_tables,
)
from memgap.store.points import csv_gz
from memgap.study.study import Study
from memgap.tables.command import main
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import READ, offline_of
from memgap.telemetry import gpm
from memgap.workflow import load_study
from tests.support.offline_studies import SYNCHRONOUS, config
from tests.support.records import store_point
from tests.support.waiting import LAST_RESORT_S

WINDOW = {"prefill_steps": 1, "decode_from": 4, "decode_steps": 2}
ENGINE = {"attention_backend": "FLASH_ATTN", "weights_bytes": 500, "kv_pool_tokens": 100, "start_s": 30.0}
CLASSES = ("phase", "kernel_class", "kernels", "gpu_s", "busy_s", "steps", "span_s")
TIMELINE = ("phase", "step", "start_ms", "duration_ms", "stream", "kernel_class", "name", "step_ms", "profiler")


def steps(decode_ms: Sequence[float], prefill_ms: float = 10.0) -> list[dict[str, Any]]:
    """Return the steps of a point: one prefill step and decode steps of those wall times."""
    zeros = dict.fromkeys(COLUMNS, 0.0)
    walls = [("prefill", 0, prefill_ms), *(("decode", number, wall) for number, wall in enumerate(decode_ms))]
    return [
        {**zeros, "phase": phase, "step": step, "wall_s": wall / 1e3, "tokens": 1, "gpu_s": wall / 2e3}
        for phase, step, wall in walls
    ]


class Store:
    """A store with points of a study of a batch with torch.profiler, with ncu and without."""

    def __init__(self, folder: Path, *experiments: str) -> None:
        every: dict[str, Any] = {
            "plain": {},
            "torch": {"profiler": {"source": "torch", **WINDOW}},
            "ncu": {"profiler": {"source": "ncu", **WINDOW}},
        }
        wanted = {name: every[name] for name in experiments}
        self.study: Study = load_study(config(wanted, batch=[2], server=SYNCHRONOUS))
        self.plan = self.study.group_plan("phases")
        self.folder = folder
        self.entries = {entry["experiment"]: entry for entry in self.plan["points"]}

    def put(self, name: str, files: Mapping[str, bytes], **changes: Any) -> None:
        """Store a point with further files."""
        entry = self.entries[name]
        rows = (
            []
            if "steps.csv.gz" not in files
            else list(csv.DictReader(gzip.decompress(files["steps.csv.gz"]).decode().splitlines()))
        )
        lengths = [(entry["record"]["prompt_tokens"], entry["record"]["output_tokens"])]
        summary = summarize_steps(rows, {}, lengths)
        verdict: dict[str, Any] = {"verdict": "valid", "limit": None, "reasons": []}
        store_point(self.folder, entry["record"], summary, **{"engine": ENGINE, "verdict": verdict, **changes})
        for file, data in files.items():
            (self.folder / entry["key"] / file).write_bytes(data)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the study's tables."""
        return offline_tables(self.plan, self.folder)


def stored_steps(decode_ms: Sequence[float], prefill_ms: float = 10.0) -> dict[str, bytes]:
    """Return a point's file of steps."""
    return {"steps.csv.gz": csv_gz(steps(decode_ms, prefill_ms), list(COLUMNS))}


def torch_files(decode_ms: Sequence[float]) -> dict[str, bytes]:
    """Return the files of a point with torch.profiler: two decode steps of 3 ms, 1 ms of them matrix products."""
    classes = [
        dict(zip(CLASSES, ("decode", "matmul", 8, 0.002, 0.003, 2, 0.006), strict=True)),
        dict(zip(CLASSES, ("decode", "attention", 4, 0.001, 0.003, 2, 0.006), strict=True)),
        dict(zip(CLASSES, ("prefill", "matmul", 4, 0.005, 0.005, 1, 0.007), strict=True)),
    ]
    timeline = [dict(zip(TIMELINE, ("decode", 4, 0.5, 0.25, 7, "matmul", "nvjet", 3.0, "torch"), strict=True))]
    return {
        **stored_steps(decode_ms, 12.0),
        "classes.csv.gz": csv_gz(classes, CLASSES),
        "timeline.csv.gz": csv_gz(timeline, TIMELINE),
    }


def test_a_point_without_a_profiler_is_a_row_with_its_steps(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain")
    store.put("plain", stored_steps([2.0] * 7))
    tables = store.tables()
    assert set(tables) == set(READ)
    (point,) = tables["offline"].to_dict("records")
    assert list(tables["offline"].columns) == list(READ["offline"].names)
    expected = {
        "sweep": "phases",
        "experiment": "plain",
        "model": "tiny-opt",
        "engine_version": "0.26.0",
        "batch": 2,
        "mode": "graphs",
        "profiler": "none",
        "async_scheduling": "no",
        "detokenize": "yes",
        "status": "ok",
        "attention_backend": "FLASH_ATTN",
        "gpu_name": "TEST GPU",
        "source": "measured",
        "verdict": "valid",
        "prefill_steps": 1,
        "decode_steps": 7,
        "weights_bytes": 500,
        "kv_bytes_per_token": 8192,
        "preemptions": 0,
    }
    assert {name: point[name] for name in expected} == expected
    assert point["decode_step_mean_ms"] == pytest.approx(2.0)
    assert point["gpu_ms"] == pytest.approx(1.0)
    assert pd.isna(point["slowdown_from_profiler"])
    rows = tables["steps"]
    assert list(rows.columns) == list(READ["steps"].names)
    assert rows["phase"].tolist() == ["prefill"] + ["decode"] * 7
    assert rows["wall_ms"].tolist() == pytest.approx([10.0] + [2.0] * 7)
    assert {f"{name.removesuffix('_s')}_ms" for name in SEGMENTS} <= set(rows.columns)


def test_a_profiled_points_wall_is_that_of_the_same_steps_without_profiler(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain", "torch")
    store.put("plain", stored_steps([1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 9.0]))
    store.put("torch", torch_files([1.5, 1.5, 1.5, 1.5, 6.0, 6.0]))
    tables = store.tables()
    classes: Any = tables["classes"].set_index(["phase", "kernel_class"])
    assert list(tables["classes"].columns) == list(READ["classes"].names)
    matmul = classes.loc[("decode", "matmul")]
    expected = {"kernels_per_step": 4, "gpu_ms_per_step": 1.0, "busy_ms_per_step": 1.5, "span_ms_per_step": 3.0}
    assert {name: matmul[name] for name in expected} == pytest.approx(expected)
    assert matmul["wall_ms_per_step"] == pytest.approx(3.0), "steps 4 and 5 of the twin"
    assert classes.loc[("prefill", "matmul"), "wall_ms_per_step"] == pytest.approx(10.0)
    assert set(tables["classes"]["profiler"]) == {"torch"}
    point = tables["offline"].set_index("profiler").loc["torch"]
    assert point["slowdown_from_profiler"] == pytest.approx(2.0)


def test_a_twin_whose_window_was_thinned_out_gives_its_nearest_steps(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain", "torch")
    kept = [one for one in steps([1.0, 9.0, 9.0, 2.0, 9.0, 9.0, 4.0]) if one["step"] in (0, 3, 6)]
    store.put("plain", {"steps.csv.gz": csv_gz(kept, list(COLUMNS))})
    store.put("torch", torch_files([1.5] * 6))
    decode: Any = store.tables()["classes"].set_index(["phase", "kernel_class"]).loc[("decode", "matmul")]
    assert decode["wall_ms_per_step"] == pytest.approx(3.0), "steps 3 and 6"


def test_without_a_twin_the_steps_before_the_window_stand_in(tmp_path: Path) -> None:
    store = Store(tmp_path, "torch")
    store.put("torch", torch_files([9.0, 1.0, 2.0, 3.0, 8.0, 8.0]))
    tables = store.tables()
    classes: Any = tables["classes"].set_index(["phase", "kernel_class"])
    assert classes.loc[("decode", "matmul"), "wall_ms_per_step"] == pytest.approx((9 + 1 + 2 + 3) / 4)
    assert pd.isna(classes.loc[("prefill", "matmul"), "wall_ms_per_step"])
    assert tables["offline"]["slowdown_from_profiler"].tolist() == pytest.approx([8 / 3.75])


def _decode_walls(store: Store) -> list[float]:
    classes = store.tables()["classes"]
    return [float(wall) for wall in classes.loc[classes["phase"] == "decode", "wall_ms_per_step"]]


def test_a_failed_twin_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain", "torch")
    store.put("plain", stored_steps([5.0] * 7), status="kv_exhausted")
    store.put("torch", torch_files([1.0] * 4 + [8.0] * 2))
    assert _decode_walls(store) == [1.0, 1.0]


def test_timelines_and_counters_say_whose_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path, "torch", "ncu")
    store.put("torch", torch_files([1.0] * 6))
    counters = [
        {
            **dict.fromkeys(READ["counters"].names, 1.0),
            "phase": phase,
            "step": step,
            "name": "flash",
            "kernel_class": "attention",
        }
        for phase, step in (("decode", 4), ("prefill", 0))
    ]
    first = READ["counters"].names.index("phase")
    columns = [*READ["counters"].names[first:-1], "stall_made_up_cycles"]
    store.put("ncu", {**stored_steps([1.0] * 6), "counters.csv.gz": csv_gz(counters, columns)})
    tables = store.tables()
    (kernel,) = tables["kernels"].to_dict("records")
    assert list(tables["kernels"].columns) == list(READ["kernels"].names)
    assert (kernel["key"], kernel["prompt_tokens"], kernel["profiler"]) == (store.entries["torch"]["key"], 16, "torch")
    found = tables["counters"]
    assert set(found.columns) == {*READ["counters"].names, "stall_made_up_cycles"}
    assert found["context_tokens"].tolist() == [16 + 5, 16], "prompt and the tokens so far; the prompt in prefill"
    assert set(found["profiler"]) == {"ncu"}
    slowdown = tables["offline"].set_index("profiler")["slowdown_from_profiler"]
    assert pd.isna(slowdown["ncu"]), "ncu watches all steps, so that none tells what it costs"


def test_missing_garbled_and_failed_points_are_rows(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain", "torch", "ncu")
    garbled = tmp_path / store.entries["torch"]["key"]
    garbled.mkdir(parents=True)
    (garbled / "point.json").write_text('{"key"')
    store.put("ncu", stored_steps([]), status="oom", verdict={"verdict": None, "limit": None, "reasons": []})
    table: Any = store.tables()["offline"].set_index("experiment")
    assert table["status"].to_dict() == {"plain": "missing", "torch": "garbled", "ncu": "oom"}
    assert table.loc["ncu", "error_message"] == "it was oom"
    assert pd.isna(table.loc["ncu", "preemptions"])
    assert table["batch"].tolist() == [2, 2, 2]


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path, "torch")
    store.put("torch", {**torch_files([1.0] * 6), "classes.csv.gz": b"no gzip"})
    with pytest.raises(UserError, match=r"classes.csv.gz is damaged .*measure the point again"):
        store.tables()


def test_device_counters_over_time_keep_their_source(tmp_path: Path) -> None:
    store = Store(tmp_path, "plain")
    rows = [{"phase": "decode", "time_ms": 5.0, "metric": "dram", "value_fraction": 0.5, "profiler": "gpm"}]
    store.put("plain", {**stored_steps([1.0] * 7), "gpu.csv.gz": csv_gz(rows, list(rows[0]))})
    (row,) = store.tables()["gpu"].to_dict("records")
    assert list(row) == list(READ["gpu"].names)
    assert (row["batch"], row["profiler"], row["value_fraction"]) == (2, "gpm", 0.5)


def script(store: Store, folder: Path) -> dict[str, Path]:
    """Run the job that writes the tables; returns their paths by kind."""
    (folder / "plan.json").write_text(json.dumps(store.plan))
    paths = {kind: folder / f"phases.{kind}.csv" for kind in READ}
    argv = ["--plan", str(folder / "plan.json"), "--table", "offline", "--results", str(store.folder.parent)]
    assert main([*argv, "--write", *(f"{kind}={path}" for kind, path in paths.items())]) == 0
    return paths


def test_tables_without_any_point_have_their_headers_and_can_be_read(tmp_path: Path) -> None:
    paths = script(Store(tmp_path / "points", "plain", "torch", "ncu"), tmp_path)
    headers = {kind: path.read_text().splitlines()[0].split(",") for kind, path in paths.items()}
    assert headers["classes"] == list(READ["classes"].names)
    assert headers["kernels"] == list(READ["kernels"].names)
    assert headers["counters"] == list(READ["counters"].names)
    assert headers["gpu"] == list(READ["gpu"].names)
    assert headers["steps"] == list(READ["steps"].names)
    assert headers["offline"] == list(READ["offline"].names)
    paths.pop("steps")
    tables = offline_of(Inputs({f"study.{kind}": path for kind, path in paths.items()}))
    assert tables.points["status"].tolist() == ["missing"] * 3
    assert tables.counters.empty and tables.classes.empty and tables.kernels.empty and tables.gpu.empty


def test_full_tables_can_be_read_by_the_figures(tmp_path: Path) -> None:
    store = Store(tmp_path / "points", "plain", "torch")
    store.put("plain", stored_steps([2.0] * 7))
    store.put("torch", torch_files([2.0] * 6))
    paths = script(store, tmp_path)
    paths.pop("steps")
    tables = offline_of(Inputs({f"study.{kind}": path for kind, path in paths.items()}))
    assert tables.models == ["tiny-opt"]
    assert tables.classes["kernel_class"].tolist() == ["matmul", "attention", "matmul"]
    assert tables.points["decode_step_mean_ms"].tolist() == pytest.approx([2.0, 2.0])


class FakeGpm:
    """NVML's GPM calls; each sample is the time of its taking, in units of its own."""

    NVML_CLOCK_SM = 1
    NVML_GPM_METRICS_GET_VERSION = 1
    NVML_GPM_METRIC_SM_UTIL, NVML_GPM_METRIC_SM_OCCUPANCY = 2, 3
    NVML_GPM_METRIC_ANY_TENSOR_UTIL, NVML_GPM_METRIC_DRAM_BW_UTIL = 5, 10

    def __init__(self, supported: bool = True) -> None:
        self.supported = supported
        self.freed = 0

    def nvmlGpmQueryDeviceSupport(self, _: Any) -> Any:  # noqa: N802 - NVML's names
        return SimpleNamespace(isSupportedDevice=self.supported)

    def nvmlGpmSampleAlloc(self) -> Any:  # noqa: N802
        return SimpleNamespace(number=0)

    def nvmlGpmSampleGet(self, _: Any, sample: Any) -> None:  # noqa: N802
        self.taken = getattr(self, "taken", 0) + 1
        sample.number = self.taken

    def nvmlGpmSampleFree(self, _: Any) -> None:  # noqa: N802
        self.freed += 1

    def nvmlDeviceGetClockInfo(self, *_: Any) -> int:  # noqa: N802
        return 1980

    def nvmlDeviceGetPowerUsage(self, _: Any) -> int:  # noqa: N802
        return 350_000

    def c_nvmlGpmMetricsGet_t(self) -> Any:  # noqa: N802
        return SimpleNamespace(metrics=[SimpleNamespace(value=0.0, nvmlReturn=0) for _ in range(9)])

    def nvmlGpmMetricsGet(self, asked: Any) -> None:  # noqa: N802
        assert asked.sample2.number == asked.sample1.number + 1, "of the time since the sample before"
        for metric in asked.metrics[: asked.numMetrics]:
            metric.value = 10.0 * metric.metricId
            metric.nvmlReturn = 1 if metric.metricId == self.NVML_GPM_METRIC_ANY_TENSOR_UTIL else 0


def test_gpm_rows_are_of_the_time_since_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpm()
    monkeypatch.setattr(gpm, "pynvml", fake)
    readings = gpm.readings(None, 0.001)
    rows = [next(readings) for _ in range(3)]
    del readings
    assert fake.freed == 2, "the samples are given back"
    for one in rows:
        named = {name: value for name, value in one.items() if name != "time_monotonic_s"}
        assert named == pytest.approx(
            {
                "sm_active_fraction": 0.2,
                "warps_fraction": 0.3,
                "dram_fraction": 1.0,
                "sm_clock_mhz": 1980,
                "power_w": 350,
            }
        ), "a counter that NVML refuses is absent"
    times = [one["time_monotonic_s"] for one in rows]
    assert times == sorted(times)
    assert set(rows[0]) <= set(gpm.COLUMNS)


def test_a_gpu_without_gpm_gives_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpm, "pynvml", FakeGpm(supported=False))
    assert list(gpm.readings(None, 0.001)) == []


def test_the_sampler_ends_with_its_standard_input(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "memgap.telemetry.gpm", "--out", str(tmp_path / "gpm.csv")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(LAST_RESORT_S) == 0
    assert (tmp_path / "gpm.csv").read_text().splitlines()[0] == ",".join(gpm.COLUMNS)


def test_rows_of_a_window_are_those_that_ended_in_it(tmp_path: Path) -> None:
    path = tmp_path / "gpm.csv"
    path.write_text(
        "time_monotonic_s,sm_active_fraction,warps_fraction,tensor_fraction,dram_fraction,sm_clock_mhz,power_w\n"
        "1.0,0.1,,nan,0.2,1000,\n2.0,0.3,,,0.4,1000,\n3.0,0.9,,,0.9,1000,\n"
    )
    sampler = GpmSampler(path)
    rows = sampler.rows(0.5, 2.0)
    assert [one["time_monotonic_s"] for one in rows] == [1.0, 2.0]
    assert "tensor_fraction" not in rows[0]
    assert phase_means(rows, "decode") == pytest.approx(
        {
            "decode_sm_active_mean_fraction": 0.2,
            "decode_sm_active_max_fraction": 0.3,
            "decode_dram_mean_fraction": 0.3,
            "decode_dram_max_fraction": 0.4,
        }
    )
    assert GpmSampler(tmp_path / "none.csv").rows(0.0, 9.0) == []


def test_a_summary_takes_device_counters_and_clocks_where_there_are_any() -> None:
    device = {
        "prefill": [{"sm_active_fraction": 0.5, "sm_clock_mhz": 1000.0}],
        "decode": [{"dram_fraction": 0.8, "sm_clock_mhz": 2000.0, "power_w": 300.0}],
    }
    rows = [{name: str(value) for name, value in one.items()} for one in steps([1.0, 2.0, 3.0, 10.0])]
    found = summarize_steps(rows, device, [(10, 5), (10, 5)])
    assert found["prefill_sm_active_max_fraction"] == 0.5
    assert found["decode_dram_mean_fraction"] == 0.8
    assert found["sm_clock_mean_mhz"] == 1500.0
    assert found["decode_power_mean_w"] == 300.0
    assert (found["decode_step_p50_ms"], found["decode_step_p99_ms"]) == pytest.approx((2.0, 10.0))
    assert found["context_mean_tokens"] == 12.5
    unequal = summarize_steps(rows, device, [(10, 5), (100, 2), (7, 1)])
    assert unequal["context_mean_tokens"] == pytest.approx((4 * 12.5 + 101) / 5)
    assert found["total_s"] == pytest.approx(0.026)
