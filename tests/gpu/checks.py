"""What the GPU's own checks share: small sessions of memgap run as processes, and a look at what they leave behind."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
SIMULATED = Path(__file__).resolve().parent / "simulated"
sys.path[:0] = [str(CHECKOUT / "src"), *([str(SIMULATED)] if any(one.endswith("mock") for one in sys.argv) else [])]

from memgap.canonical import canonical_json  # noqa: E402
from memgap.host.mps import CONTROL  # noqa: E402
from memgap.session.inputs import write_inputs  # noqa: E402
from memgap.store.points import PointStore  # noqa: E402
from memgap.telemetry.nvml import Nvml  # noqa: E402
from memgap.workflow import load_study  # noqa: E402

MPS_PROCESSES = CONTROL.removesuffix("control")
READY = "server ready"
GONE_WITHIN_S = 15.0
"""So long a driver may take to forget a process that has ended."""
PATIENCE_S = 400.0
EAGER = {"enforce-eager": True}
"""Servers that start fast: their rates do not matter here."""
LOADS = {"mock": (40, 32), "vllm": (200, 128)}
"""Requests and output tokens of a load that takes some seconds (mock) or about a minute (vllm)."""


def parse(description: str, scenarios: Iterable[str], arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of a check."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--engine", choices=sorted(LOADS), default="vllm", help="mock: simulated, without a GPU")
    parser.add_argument("--engine-python", default="auto", help="interpreter that has vLLM, as engines.vllm.python")
    parser.add_argument("--engine-version", default="auto", help="as engines.vllm.version")
    parser.add_argument("--model", default="opt-1.3b", help="with synthetic weights; not for the mock")
    parser.add_argument("--requests", type=int, help="of each session's load")
    parser.add_argument("--scenario", choices=list(scenarios), action="append", help="only this one; may be repeated")
    parser.add_argument("--results", type=Path, help="a new folder; a temporary one unless told")
    parser.add_argument("--out", type=Path, help="write the report here as well")
    return parser.parse_args(arguments)


class Session:
    """One session: its plan and, once started, its process."""

    def __init__(self, bench: "Bench", name: str, plan: Mapping[str, Any]) -> None:
        self.bench = bench
        self.plan = plan
        self.plan_file = bench.results / f"{name}.plan.json"
        self.log = bench.results / f"{name}.log"
        self.plan_file.write_text(canonical_json(plan) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start to measure, in a process of its own."""
        script = CHECKOUT / "workflow/scripts/run_session.py"
        command = [sys.executable, str(script), "--plan", str(self.plan_file), "--results", str(self.bench.results)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.bench.environment)
        self.bench.sessions.append(self)

    def ready(self) -> bool:
        """Whether the server has started."""
        return READY in self.log.read_text()

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process is not None and self.process.poll() is not None

    def servers(self) -> list[psutil.Process]:
        """Return the running servers: what the session's supervisors have started, without MPS."""
        if self.process is None or self.ended():
            return []
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends while it is asked: asked again a moment later
            supervisors = psutil.Process(self.process.pid).children()
            ours = [one for one in supervisors if "memgap.host.supervisor" in one.cmdline()]
            started = [child for one in ours for child in one.children()]
        return sorted((one for one in started if not is_mps(one)), key=lambda one: one.pid)

    def points(self) -> list[dict[str, Any]]:
        """Return the stored points of the plan."""
        store = PointStore(self.bench.results / "points")
        return [point for one in self.plan["points"] if (point := store.read(one["key"])) is not None]

    def report(self) -> dict[str, Any]:
        """Return what came of it."""
        found = [
            {
                "status": point["status"],
                "error": (point["error"] or {}).get("message"),
                "verdict": point.get("verdict", {}).get("verdict"),
                "reasons": {one["check"]: one["text"] for one in point.get("verdict", {}).get("reasons", [])},
                "throughput_tok_s": point["summary"].get("total_throughput_tok_s"),
                "date_utc": point["provenance"]["date_utc"],
            }
            for point in self.points()
        ]
        status = self.process.returncode if self.process is not None else None
        return {"session": self.plan["session"], "exit_status": status, "points": found}


class Bench:
    """The results folder of one scenario, its sessions, and what was there before them."""

    def __init__(self, options: argparse.Namespace, scenario: str) -> None:
        self.options = options
        self.results = options.results / scenario
        self.results.mkdir(parents=True)
        self.simulated = options.engine == "mock"
        self.sessions: list[Session] = []
        self._seen: set[psutil.Process] = set()
        self._temporary = Path(tempfile.mkdtemp(prefix="mg-"))  # short: sockets lie in it
        paths = [str(CHECKOUT / "src"), *([str(SIMULATED)] if self.simulated else [])]
        before = {name: os.environ.get(name, "") for name in ("PYTHONPATH", "PATH")}
        self.environment = {
            **os.environ,
            "MEMGAP_CHECK": str(self.results),
            "TMPDIR": str(self._temporary),
            "PYTHONPATH": os.pathsep.join([*paths, before["PYTHONPATH"]]),
            "PATH": os.pathsep.join([*([str(SIMULATED)] if self.simulated else []), before["PATH"]]),
        }
        os.environ["MEMGAP_CHECK"] = str(self.results)
        self._before = self._traces()

    def session(self, name: str, **arguments: Any) -> Session:
        """Return a session of one point, with its dataset and model made; `arguments` are those of a sweep."""
        requests, output_tokens = LOADS[self.options.engine]
        requests = self.options.requests or requests
        engine = {"adapter": self.options.engine, "startup_timeout_s": PATIENCE_S}
        if not self.simulated:
            engine |= {"python": self.options.engine_python, "version": self.options.engine_version}
        model = "tiny-opt" if self.simulated else self.options.model
        load = {"requests": requests, "warmup_requests": 4}
        if not self.simulated:
            arguments = {**arguments, "server": {**EAGER, **arguments["server"]}}
            arguments["env"] = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        fixed = {"model": model, "dataset": "short", "batch_cap": 4, "load": load, **arguments}
        study = load_study(
            {
                "engines": {self.options.engine: engine},
                "models": {model: {"weights": "synthetic", "dtype": "float16"}},
                "datasets": {
                    "short": {
                        "kind": "random",
                        "requests": requests,
                        "prompt_tokens": 32,
                        "output_tokens": output_tokens,
                    }
                },
                "sweeps": {name: {"fixed": fixed}},
                "collectors": {"interval_s": 0.1},
            }
        )
        (only,) = study.sessions
        plan = study.session_plan(only)
        write_inputs(plan, self.results)
        return Session(self, name, plan)

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        """Wait for a condition, noting every process that the sessions start; returns whether it came."""
        deadline_s = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            for one in self.sessions:
                assert one.process is not None
                with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is asked
                    self._seen |= set(psutil.Process(one.process.pid).children(recursive=True))
            time.sleep(0.1)
        return True

    def finish(self) -> None:
        """Wait for all sessions; one that never ends is killed, which the report shows as its exit status."""
        self.until(lambda: all(one.ended() for one in self.sessions))
        for one in self.sessions:
            assert one.process is not None
            if not one.ended():
                one.process.kill()
            one.process.wait()

    def left(self) -> dict[str, list[str]]:
        """Return what the sessions left behind; waits a while for it to go."""
        self.until(lambda: not any(self._left().values()), GONE_WITHIN_S)
        return self._left()

    def close(self) -> None:
        """Remove the sessions' temporary folder."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def mps_processes(self) -> list[psutil.Process]:
        """Return the MPS processes of this machine; simulated ones only of this check."""
        found = [one for one in psutil.process_iter() if is_mps(one)]
        return [one for one in found if is_of(one, str(self.results))] if self.simulated else found

    def _left(self) -> dict[str, list[str]]:
        alive = [f"{one.pid} {name}" for one in self._seen if (name := name_of_living(one))]
        now = {kind: sorted(found - self._before[kind]) for kind, found in self._traces().items()}
        return {"processes": sorted(alive), **now}

    def _traces(self) -> dict[str, set[str]]:
        with Nvml() as gpu:
            on_gpu = {str(pid) for pid in gpu.processes()}
        folders = {str(path) for path in self._temporary.glob("memgap-*")}
        mps = {f"{one.pid} {name}" for one in self.mps_processes() if (name := name_of_living(one))}
        return {"processes_on_gpu": on_gpu, "mps_processes": mps, "temporary_folders": folders}


def name_of_living(process: psutil.Process) -> str | None:
    """Return the name of a process, or None when it has ended, also while it is asked."""
    try:
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return process.name() if alive else None
    except psutil.NoSuchProcess:
        return None


def is_of(process: psutil.Process, check: str) -> bool:
    """Whether a process was started by this check, as its environment says."""
    try:
        return process.environ().get("MEMGAP_CHECK") == check
    except psutil.Error:
        return False


def is_mps(process: psutil.Process) -> bool:
    """Whether a process is an MPS daemon or server."""
    try:
        words = [process.name(), *process.cmdline()[:2]]
    except psutil.Error:
        return False
    return any(word.rsplit("/", 1)[-1].startswith(MPS_PROCESSES) for word in words)


def run(options: argparse.Namespace, scenarios: Mapping[str, Callable[[Bench], dict[str, bool]]]) -> int:
    """Run the scenarios asked for and print the report as JSON; returns 0 where every expectation was met, else 1.

    A scenario returns its expectations, each with whether it was met; that nothing is left is added to them.
    """
    if options.results is None:
        options.results = Path(tempfile.mkdtemp(prefix="memgap-check-"))
    report: dict[str, Any] = {"simulated": options.engine == "mock", "gpu": None, "driver": None}
    with Nvml() as gpu:
        facts = gpu.facts()
    report |= {"gpu": facts.get("gpu_name"), "driver": facts.get("driver"), "scenarios": []}
    for name in options.scenario or scenarios:
        bench, began_s = Bench(options, name), time.monotonic()
        try:
            met = scenarios[name](bench)
        finally:
            bench.finish()
        left = bench.left()
        report["scenarios"].append(
            {
                "scenario": name,
                "met": {**met, "nothing is left": not any(left.values())},
                "seconds": round(time.monotonic() - began_s, 1),
                "sessions": [one.report() for one in bench.sessions],
                "left": left,
            }
        )
        bench.close()
    report["all_met"] = all(all(one["met"].values()) for one in report["scenarios"])
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if report["all_met"] else 1
