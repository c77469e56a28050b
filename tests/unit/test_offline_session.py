"""Offline sessions around a made-up worker: what is stored, what a failure is, and that nothing is measured twice.

The worker is this file itself, run as a script in the engine's place; what it does stands in worker.json beside it.
"""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.canonical import canonical_json
from memgap.datasets import store_dataset
from memgap.errors import UserError
from memgap.kinds.offline.profilers import NcuProfiler, NsysProfiler, profiler_of
from memgap.kinds.offline.profiles import recorded_files
from memgap.kinds.offline.steps import COLUMNS, Step, row
from memgap.kinds.offline.tables import make
from memgap.profiling.timeline import Recording, timeline_table, windows_table
from memgap.recorded.export import STEPS_KEPT, TELEMETRY_ROWS, export
from memgap.recorded.files import all_points
from memgap.study.study import Study
from memgap.tables.inputs import Inputs
from memgap.workflow import load_study
from tests.support.offline_studies import SYNCHRONOUS, config
from tests.support.processes import left
from tests.support.waiting import LAST_RESORT_S, until

SCRIPT = Path(__file__).resolve().parents[2] / "workflow/scripts/run_session.py"
NCU = Path(__file__).parent / "data/ncu_raw_h200.csv"

WORKER = """#!{python}
import csv, json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1:3] == ["-m", "memgap.kinds.offline.worker"], sys.argv
out, spec = Path(arguments["--out"]), json.loads(Path(arguments["--spec"]).read_text())
told = json.loads((here / "worker.json").read_text())
with (here / "starts.jsonl").open("a") as file:
    runs = [run["batch"] for run in spec["runs"]]
    asked = [(run["lengths"], run.get("prompts")) for run in spec["runs"]]
    seen = dict(flags=spec["flags"], runs=runs, asked=asked, variables=dict(os.environ))
    file.write(json.dumps(seen) + chr(10))
print("Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN'].", flush=True)
if told.get("start"):
    sys.exit(told["start"])
time.sleep(told.get("start_s", 0))
samples = out.parent / "samples.csv"
while told.get("sampled") and not (samples.exists() and samples.read_text().count(chr(10)) >= 3):
    time.sleep(0.05)
(out / "engine.json").write_text(json.dumps(
    dict(version=told.get("version", "0.26.0"), num_gpu_blocks=10, kv_block_tokens=16, kv_pool_tokens=160,
         max_model_len=64, async_scheduling=False, vocabulary_size=8192, start_s=1.5)))
for run in spec["runs"]:
    what = told.get(str(run["batch"]), {{}})
    if "die" in what:
        sys.exit(what["die"])
    time.sleep(what.get("sleep_s", 0))
    folder = out / ("." + run["key"])
    folder.mkdir()
    (folder / "steps.csv").write_text(what.get("steps", told["steps"]))
    begin = time.monotonic()
    outcome = dict(status="ok", message=None, files=[], start_unix_s=time.time(), start_monotonic_s=begin,
                   prefill_end_monotonic_s=begin, end_monotonic_s=begin)
    (folder / "run.json").write_text(json.dumps({{**outcome, **what.get("outcome", {{}})}}))
    folder.rename(out / run["key"])
    if what.get("outcome", {{}}).get("status") == "oom":
        sys.exit(1)
"""


def steps_csv(prefill: int = 2, decode: int = 7) -> str:
    """Return what a worker writes of its steps: 10 ms each prefill step, 2 ms each decode step."""
    steps = [
        Step(phase, number, 0.0, wall_s=wall_s, tokens=4, running=4, gpu_s=wall_s / 2, kv_cache_usage_fraction=0.25)
        for phase, count, wall_s in (("prefill", prefill, 0.01), ("decode", decode, 0.002))
        for number in range(count)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row(step) for step in steps)
    return text.getvalue()


class Runner:
    """A folder with a made-up worker, and the one session of an offline study."""

    def __init__(self, folder: Path, worker: dict[str, Any] | None = None, **changes: Any) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.python = folder / "python"
        self.python.write_text(WORKER.format(python=sys.executable))
        self.python.chmod(0o755)
        self.tell(**(worker or {}))
        configuration = config(**{"batch": [1, 2, 4], **changes})
        engine = {"python": str(self.python), "startup_timeout_s": 600, "version": "0.26.0"}
        configuration["engines"]["vllm"] |= engine
        self.study: Study = load_study(configuration)
        (self.name,) = self.study.sessions_of("phases")
        self.plan = self.study.session_plan(self.name)

    def tell(self, **worker: Any) -> None:
        """Say what the worker does: `start` its exit status before the engine is there, and what each batch does."""
        (self.folder / "worker.json").write_text(json.dumps({"steps": steps_csv(), **worker}))

    def command(self) -> list[str]:
        """Write the plan and return the command line."""
        (self.folder / "plan.json").write_text(canonical_json(self.plan))
        return [sys.executable, str(SCRIPT), "--plan", str(self.folder / "plan.json"), "--results", str(self.results)]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of the session, which marks all its processes."""
        return {**os.environ, "MEMGAP_TEST_FOLDER": str(self.folder), **more}

    def run(self, **more: str) -> str:
        """Run the session to its end; returns what it printed."""
        done = subprocess.run(
            self.command(),
            capture_output=True,
            text=True,
            check=False,
            timeout=LAST_RESORT_S,
            env=self.environment(**more),
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert self.left() == []
        return done.stderr

    def points(self) -> dict[int, dict[str, Any]]:
        """Return the stored points by batch."""
        found = [json.loads(path.read_text()) for path in self.results.glob("points/[!.]*/point.json")]
        return {one["record"]["batch"]: one for one in found}

    def statuses(self) -> dict[int, str]:
        """Return the points' statuses by batch."""
        return {batch: point["status"] for batch, point in sorted(self.points().items())}

    def starts(self) -> list[dict[str, Any]]:
        """Return what each worker was started with."""
        return [json.loads(line) for line in (self.folder / "starts.jsonl").read_text().splitlines()]

    def left(self) -> list[str]:
        """Return the processes of the session that still run."""
        return left(self.folder)


def test_all_points_are_measured_by_one_worker_and_once(tmp_path: Path) -> None:
    session = Runner(tmp_path)
    printed = session.run()
    assert "starting the engine for 3 points" in printed
    assert "point 2 of 3 (tiny-opt, batch 2): 2.00 ms a decode step" in printed
    assert session.statuses() == {1: "ok", 2: "ok", 4: "ok"}
    (start,) = session.starts()
    assert start["runs"] == [1, 2, 4]
    flags = start["flags"]
    assert flags[flags.index("--load-format") + 1] == "dummy"
    assert f"models/{session.plan['model_folder']}" in flags[flags.index("--model") + 1]
    assert start["variables"]["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    written = {path: path.stat().st_mtime_ns for path in session.results.glob("points/[!.]*/point.json")}
    assert "all 3 points are in the store already" in session.run()
    assert len(session.starts()) == 1
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert not list(session.results.glob("sessions/.*.work"))
    outcome = json.loads((session.results / f"sessions/{session.name}.json").read_text())
    assert [point["status"] for point in outcome["points"]] == ["ok"] * 3


def test_a_point_has_its_summary_and_what_the_engine_says_of_itself(tmp_path: Path) -> None:
    session = Runner(tmp_path, batch=4)
    session.run()
    point = session.points()[4]
    expected = {
        "prefill_steps": 2,
        "decode_steps": 7,
        "prefill_s": 0.02,
        "decode_s": 0.014,
        "total_s": 0.034,
        "decode_step_mean_ms": 2.0,
        "decode_step_p99_ms": 2.0,
        "decode_throughput_tok_s": 4 / 0.002,
        "kv_cache_usage_max_fraction": 0.25,
        "context_mean_tokens": 16 + 4,
        "gpu_ms": 1.0,
        "rest_ms": 1.0,
        "wall_ms": 2.0,
        "schedule_ms": 0.0,
    }
    assert {name: point["summary"][name] for name in expected} == pytest.approx(expected)
    engine = point["engine"]
    assert (engine["version"], engine["attention_backend"], engine["kv_pool_tokens"]) == ("0.26.0", "FLASH_ATTN", 160)
    assert engine["kv_pool_bytes"] == 160 * 4 * 2 * 512 * 2
    assert engine["weights_bytes_source"] == "architecture"
    assert point["verdict"] == {"verdict": "valid", "limit": None, "reasons": []}
    stored = session.results / "points" / point["key"]
    assert len(pd.read_csv(stored / "steps.csv.gz")) == 9
    assert "FLASH_ATTN" in (stored / "server.log").read_text()


@pytest.mark.parametrize(("running", "status"), [("0.26.0+cpu", 0), ("0.27.0", 2)])
def test_an_engine_of_another_version_than_the_points_is_refused(tmp_path: Path, running: str, status: int) -> None:
    session = Runner(tmp_path, {"version": running})
    done = subprocess.run(
        session.command(), capture_output=True, text=True, check=False, timeout=60, env=session.environment()
    )
    assert done.returncode == status, done.stderr
    assert session.left() == []
    if status:
        assert "the points belong to vllm 0.26.0, but the engine is 0.27.0; set engines.*.version" in done.stderr
        assert session.points() == {}


FAKE_GPU = """
import os, pathlib
import psutil

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

class NVMLError(Exception):
    pass

def nvmlDeviceGetCount():
    return 1

def nvmlDeviceGetComputeRunningProcesses(device):
    class Listed:
        def __init__(self, pid):
            self.pid = pid
    mine = ["-m", "memgap.kinds.offline.worker"]
    workers = [one.pid for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[2:4] == mine]
    return [Listed(pid) for pid in [*workers, *map(int, os.environ["MEMGAP_TEST_FOREIGN"].split())]]

def nvmlDeviceGetName(device):
    return "FAKE"

def nvmlDeviceGetMaxClockInfo(device, kind):
    return 2000

def nvmlDeviceGetClockInfo(device, kind):
    return int(os.environ["MEMGAP_TEST_CLOCK"])

def __getattr__(name):
    if not name.startswith("nvml"):
        raise AttributeError(name)
    def other(*_):
        if name not in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByIndex"):
            raise NVMLError("not supported")
        return 0
    return other
"""


@pytest.mark.parametrize(
    ("foreign", "clock", "verdict", "flags"),
    [
        (False, "1990", "valid", []),
        (False, "1200", "suspect", ["low_clock"]),
        (True, "1990", "invalid", ["foreign_processes"]),
    ],
    ids=["alone", "slow clock", "beside another"],
)
def test_the_verdict_is_from_what_the_gpu_showed(
    tmp_path: Path, foreign: bool, clock: str, verdict: str, flags: list[str]
) -> None:
    (tmp_path / "nvml").mkdir()
    (tmp_path / "nvml/pynvml.py").write_text(FAKE_GPU)
    session = Runner(tmp_path, {"4": {"outcome": {"start_monotonic_s": 0.0}}, "sampled": True}, batch=4)
    session.plan["options"]["interval_s"] = 0.05
    pid = os.getpid()
    path = os.pathsep.join([str(tmp_path / "nvml"), os.environ.get("PYTHONPATH", "")])
    printed = session.run(PYTHONPATH=path, MEMGAP_TEST_FOREIGN=str(pid) if foreign else "", MEMGAP_TEST_CLOCK=clock)
    assert (f"already on the GPU: process {pid} (" in printed) is foreign
    point = session.points()[4]
    assert (point["status"], point["verdict"]["verdict"], point["flags"]) == ("ok", verdict, flags)
    assert point["summary"]["gpu_foreign_processes_max"] == float(foreign)


def test_the_second_worker_measures_what_the_first_left_and_the_culprit_is_recorded(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"2": {"die": "it broke"}})
    session.run()
    assert session.statuses() == {1: "ok", 2: "crash", 4: "ok"}
    assert [start["runs"] for start in session.starts()] == [[1, 2, 4], [4]]
    error = session.points()[2]["error"]
    assert error["message"] == "the engine died"
    assert "it broke" in error["log_tail"]
    session.run()
    assert len(session.starts()) == 2, "a failure is a result"
    session.tell()
    session.plan["options"]["remeasure_failed"] = True
    session.run()
    assert session.starts()[2]["runs"] == [2]
    assert session.statuses() == {1: "ok", 2: "ok", 4: "ok"}


def test_an_engine_that_never_starts_is_tried_twice(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"start": "no engine"})
    assert session.run().count("starting the engine") == 2
    assert session.statuses() == {1: "crash", 2: "crash", 4: "crash"}
    assert "not tried: the engine failed to start 2 times" in session.points()[4]["error"]["message"]


def test_an_engine_that_starts_too_slowly_is_ended(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"start_s": 60}, batch=1)
    session.plan["options"]["startup_timeout_s"] = 0.5
    session.run()
    assert session.statuses() == {1: "start_timeout"}
    assert "not ready after 0 s" in session.points()[1]["error"]["message"]


def test_a_batch_that_does_not_fit_is_a_result_and_the_next_one_is_measured(tmp_path: Path) -> None:
    outcome = {"status": "kv_exhausted", "message": "the KV cache holds the prompts of 1 of 2 requests"}
    session = Runner(tmp_path, {"2": {"outcome": outcome, "steps": steps_csv(1, 0)}})
    printed = session.run()
    assert session.statuses() == {1: "ok", 2: "kv_exhausted", 4: "ok"}
    assert len(session.starts()) == 1
    point = session.points()[2]
    assert point["error"]["message"] == outcome["message"]
    assert f"kv_exhausted: {outcome['message']}" in printed
    assert point["verdict"]["verdict"] is None
    assert point["summary"]["decode_steps"] == 0
    assert "decode_step_mean_ms" not in point["summary"]


def test_a_batch_of_a_dataset_has_its_prompts_and_lengths(tmp_path: Path) -> None:
    session = Runner(tmp_path, batch=4, dataset="short", prompt_tokens=None, output_tokens=None)
    (spec,) = (point["record"]["dataset"] for point in session.plan["points"])
    store_dataset(session.results / f"datasets/{spec['key']}.npz", spec)
    session.run()
    ((lengths, prompts),) = session.starts()[0]["asked"]
    assert lengths == [[12, 8]] * 4 and [len(one) for one in prompts] == [12] * 4
    assert len({tuple(one) for one in prompts}) == 4
    summary = session.points()[4]["summary"]
    assert summary["output_throughput_tok_s"] == pytest.approx(4 * 8 / summary["total_s"])
    (row,) = make(Inputs(plan=session.study.group_plan("phases"), points=session.results / "points"))[
        "offline"
    ].to_dict("records")
    assert (row["dataset"], row["num_gpu_blocks"], row["kv_block_tokens"]) == ("short", 10, 16)
    assert row["start_ready_s"] > 0


def test_a_profiler_does_not_hide_why_a_point_failed(tmp_path: Path) -> None:
    outcome = {"status": "kv_exhausted", "message": "full"}
    worker = {"2": {"outcome": outcome, "steps": steps_csv(1, 0)}}
    session = Runner(tmp_path, worker, batch=2, server=SYNCHRONOUS, profiler={"source": "torch"})
    session.run()
    assert session.statuses() == {2: "kv_exhausted"}
    assert session.points()[2]["error"]["message"] == "full"


def test_a_profiler_that_saw_nothing_is_a_failure_of_its_own(tmp_path: Path) -> None:
    session = Runner(tmp_path, batch=2, server=SYNCHRONOUS, profiler={"source": "torch"})
    session.run()
    assert session.statuses() == {2: "profiler_failed"}
    assert "no kernel" in session.points()[2]["error"]["message"]


def test_out_of_memory_in_the_log_names_the_failure(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"2": {"die": "torch.OutOfMemoryError: CUDA out of memory."}})
    session.run()
    assert session.statuses() == {1: "ok", 2: "oom", 4: "ok"}


def test_out_of_memory_that_the_worker_caught_costs_no_other_point(tmp_path: Path) -> None:
    outcome = {"status": "oom", "message": "CUDA out of memory. Tried to allocate 2 GiB."}
    session = Runner(tmp_path, {"2": {"outcome": outcome, "steps": steps_csv(0, 0)}})
    session.run()
    assert session.statuses() == {1: "ok", 2: "oom", 4: "ok"}
    assert [start["runs"] for start in session.starts()] == [[1, 2, 4], [4]]


def test_without_the_profilers_program_the_session_ends_with_a_result(tmp_path: Path) -> None:
    session = Runner(tmp_path, server=SYNCHRONOUS, profiler={"source": "ncu"})
    printed = session.run(PATH=str(tmp_path / "nothing"))
    assert session.statuses() == {1: "no_profiler", 2: "no_profiler", 4: "no_profiler"}
    assert "ncu (Nsight Compute) is not on the PATH" in printed
    assert not (tmp_path / "starts.jsonl").exists()


def test_a_stopped_session_keeps_what_is_done_and_leaves_no_worker(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"2": {"sleep_s": 60}})
    process = subprocess.Popen(session.command(), stderr=subprocess.PIPE, text=True, env=session.environment())
    until(lambda: 1 in session.points())
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == 1
    assert "stopped (signal SIGTERM); finished points are kept" in printed
    assert session.statuses() == {1: "ok"}
    assert session.left() == []


def ncu_export(folder: Path, *names: str) -> None:
    """Write an export of an H200 below a folder, the range of each of its two kernels renamed."""
    text = NCU.read_text()
    for name in names:
        text = text.replace(":Step10:", f":{name}:", 1)
    (folder / "ncu.csv").write_text(text)


def entries(**changes: Any) -> list[dict[str, Any]]:
    """Return the points of a plan with ncu."""
    profiler = {"source": "ncu", "decode_from": 2}
    study = load_study(config(server=SYNCHRONOUS, profiler=profiler, **changes))
    return [{"key": key, "record": study.points[key].record} for _, key in study.offline["phases"]]


def test_ncus_kernels_go_to_the_point_that_their_range_names(tmp_path: Path) -> None:
    one, other = entries()
    profiler = NcuProfiler(one["record"]["server"]["profiler"], [one, other])
    ncu_export(tmp_path, f"DecodeStep2-{one['key'][:8]}", f"DecodeStep2-{other['key'][:8]}")
    for entry in (one, other):
        files, summary = profiler.files(entry["key"], tmp_path, tmp_path)
        table = pd.read_csv(io.BytesIO(gzip.decompress(files["counters.csv.gz"])))
        assert (table["phase"].tolist(), table["step"].tolist()) == (["decode"], [2])
        assert table["name"].tolist() == ["reshape_and_cache_flash_kernel"]
        assert table["duration_s"][0] == pytest.approx(4992e-9)
        assert "ranges" not in table
        assert summary == {"counted_kernels": 1.0}


def test_a_point_without_a_kernel_in_ncus_table_has_failed(tmp_path: Path) -> None:
    one, other = entries()
    ncu_export(tmp_path, *[f"DecodeStep2-{one['key'][:8]}"] * 2)
    with pytest.raises(UserError, match="ncu saw no kernel of this point"):
        NcuProfiler(one["record"]["server"]["profiler"], [one, other]).files(other["key"], tmp_path, tmp_path)


def test_ncu_is_asked_for_the_steps_of_all_points(tmp_path: Path) -> None:
    found = entries()
    settings = found[0]["record"]["server"]["profiler"]
    command = profiler_of(settings, found).command(["python", "x"], tmp_path)
    for entry in found:
        assert f"DecodeStep2-{entry['key'][:8]}/" in command
    assert command[-2:] == ["python", "x"]


def recording() -> Recording:
    """Return two prefill and three decode steps of two kernels each; of the second decode step they begin too early."""
    kernels: list[dict[str, object]] = []
    windows: list[dict[str, object]] = []
    for number, name in enumerate(["PrefillStep0", "DecodeStep5", "DecodeStep6", "DecodeStep7"]):
        begin = 10.0 * number
        windows.append({"name": name, "start_s": begin, "end_s": begin + 4.0})
        early = 0.5 if name == "DecodeStep6" else 0.0
        for start, kernel_class in ((1.0, "matmul"), (2.0, "attention")):
            kernels.append(
                {
                    "phase": name[:-5].lower(),
                    "step": int(name[-1]),
                    "start_s": begin + start - 3 * early,
                    "duration_s": 1.0,
                    "stream": 7,
                    "name": f"void {kernel_class}<int>()",
                    "source": "torch",
                    "kernel_class": kernel_class,
                }
            )
    kernels.append({**kernels[0], "phase": "", "step": None, "start_s": 90.0})
    return Recording(timeline_table(kernels), windows_table(windows))


def test_a_recording_becomes_class_sums_and_a_short_timeline() -> None:
    files, summary = recorded_files([recording()])
    tables = {name: pd.read_csv(io.BytesIO(gzip.decompress(data))) for name, data in files.items()}
    classes: Any = tables["classes.csv.gz"].set_index(["phase", "kernel_class"])
    assert classes.loc[("decode", "matmul"), ["kernels", "gpu_s", "busy_s", "steps", "span_s"]].tolist() == (
        [3, 3.0, 6.0, 3, 12.0]
    )
    assert classes.loc[("prefill", "attention"), ["kernels", "steps", "span_s"]].tolist() == [1, 1, 4.0]
    timeline = tables["timeline.csv.gz"]
    assert sorted(set(zip(timeline["phase"], timeline["step"], strict=True))) == (
        [("decode", 5), ("decode", 6), ("prefill", 0)]
    ), "two steps of each phase at most"
    starts = timeline.set_index(["phase", "step", "kernel_class"])["start_ms"]
    assert starts[("decode", 5, "matmul")] == 1000.0
    assert starts[("decode", 6, "matmul")] == 0.0, "a step begins with its first kernel where that is before its range"
    assert starts[("decode", 6, "attention")] == 1000.0
    assert set(timeline["step_ms"]) == {4000.0}
    assert set(timeline["profiler"]) == {"torch"}
    assert summary == {"profiled_kernels": 8.0, "unclassified_fraction": 0.0}


def test_a_recording_without_kernels_says_why() -> None:
    with pytest.raises(UserError, match="the trace has no GPU"):
        recorded_files([Recording(reason="the trace has no GPU")])
    with pytest.raises(UserError, match="saw no kernel in the wanted steps"):
        recorded_files([])


def test_nsys_that_cannot_export_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nsys"
    program.write_text("#!/bin/sh\necho 'no such report' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UserError, match=r"nsys export failed: no such report$"):
        NsysProfiler({"source": "nsys"}).files("0" * 16, tmp_path, tmp_path)


def test_recorded_offline_points_are_thin_and_hold_no_path_of_the_machine(tmp_path: Path) -> None:
    session = Runner(tmp_path, {"4": {"steps": steps_csv(2, 40)}})
    session.run()
    folder = session.results / "points" / session.points()[4]["key"]
    gpu = [
        {"phase": phase, "time_ms": time_ms, "metric": "dram", "value_fraction": share, "profiler": "gpm"}
        for phase, share in (("prefill", 0.25), ("decode", 0.5))
        for time_ms in range(1000)
    ]
    pd.DataFrame(gpu).to_csv(folder / "gpu.csv.gz", index=False)
    assert export(session.results, tmp_path / "study") == 3
    assert export(session.results, tmp_path / "study") == 3, "again changes nothing"
    points = list(all_points(tmp_path / "study"))
    assert [point["record"]["batch"] for point in points] == [1, 2, 4]
    assert not any(part.startswith("/") for point in points for part in point["provenance"]["commands"][0])
    steps = pd.read_csv(tmp_path / f"study/{session.name}.steps.csv.gz")
    mine = steps[steps["key"] == points[2]["key"]]
    assert mine.loc[mine["phase"] == "decode", "step"].tolist() == list(range(0, 40, STEPS_KEPT))
    assert (mine["phase"] == "prefill").sum() == 2
    thin = pd.read_csv(tmp_path / f"study/{session.name}.gpu.csv.gz")
    assert thin.groupby("phase").size().tolist() == [TELEMETRY_ROWS] * 2
    assert thin.groupby("phase")["value_fraction"].mean().to_dict() == {"prefill": 0.25, "decode": 0.5}
    again = Runner(tmp_path)
    again.results = tmp_path / "second"
    again.plan["options"]["recorded"] = str(tmp_path / "study")
    assert "3 of 3 points from the recorded data" in again.run()
    assert again.statuses() == session.statuses()
    assert len(again.starts()) == 1, "nothing was measured"


def test_recorded_commands_under_a_profiler_hold_no_path_either(tmp_path: Path) -> None:
    from memgap.recorded.export import _short

    command = ["ncu", "--csv", "/home/me/.venv-engine/bin/python", "--out", "/home/me/results/sessions/x/out"]
    assert _short(command) == ["ncu", "--csv", "python", "--out", "results/sessions/x/out"]
