"""How many injected faults does a point's verdict find, and how many false alarms does it raise?

`python benchmarks/verdict_faults.py [--times 5]` runs real sessions on the simulated engine, each fault `--times` times
and clean ones as often as all faults together, and prints a Markdown table. A fault counts as found when its own check
is among the verdict's reasons; a clean point that is not valid is a false alarm. Faults of the client's side (a session
that is stopped for a while, one with few open files, a client process that is told of the window too late) come after
the others, each in a session or load of its own.
"""

import argparse
import asyncio
import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from memgap.canonical import canonical_json
from memgap.load import workers
from memgap.load.latency import summarize
from memgap.load.records import LoadPlan, Prompt
from memgap.mock_server.launch import MockServer
from memgap.session.inputs import write_inputs
from memgap.verdict.evidence import Evidence
from memgap.verdict.judge import judge
from memgap.workflow import load_study

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")

FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tokens missing from the server's counter (2 %)": ("output_count", {"fault": "lost-count:0.02"}),
    "usage that disagrees with the stream by 1": ("usage_mismatch", {"fault": "miscount:1"}),
    "prefix-cache hits (5 % of the prompt)": ("prefix_cache_hits", {"fault": "prefix-hits:0.05"}),
    "chunks of 2 tokens": ("tokens_per_chunk", {"fault": "coalesce:2"}),
    "API server writes 60 ms late": ("ttft_gap", {"fault": "delay-writes:0.06"}),
    "every 20th reply half as long": ("failed_requests", {"fault": "short-output:20"}),
    "every 20th request answered 500": ("failed_requests", {"fault": "http-500:20"}),
    "every 20th stream broken off": ("failed_requests", {"fault": "break-stream:20"}),
    "every 20th stream malformed": ("failed_requests", {"fault": "malformed-event:20"}),
    "KV cache too small": ("preempted", {"kv-tokens": 256, "max-model-len": 128}),
    "metrics page stalled for 1 s": ("few_samples", {"fault": "stalled-metrics:1"}),
    "prompts 5 % longer than asked for": ("prompt_lengths", {"fault": "longer-prompts:0.05"}),
    "1 output token more than asked for": ("surplus_tokens", {"fault": "surplus-tokens:1"}),
    "every 20th reply aborted by the server": ("failed_requests", {"fault": "abort:20"}),
    "server stands still for 1 s": ("server_standstill", {"fault": "stall:40:1"}),
    "prefix cache that cannot be emptied": ("kept_prefix_cache", {"fault": "keep-cache:0.5"}),
    "running requests that are no number": ("telemetry_gap", {"fault": "odd-metrics:1"}),
}
ONCE_A_SERVER = "server_standstill"
"""The fault of this check comes once in a server's life, so each of its points has a server of its own."""
ODD_METRICS = {"fault": "odd-metrics:4"}
"""Every fourth page of metrics with NaN and a broken line: no point is lost, and none is doubted for it."""
CLEAN = {"step-base-ms": 8.0, "step-per-seq-ms": 0.1}


def config(times: int) -> dict[str, Any]:
    """Return a sweep with an experiment for each fault and clean ones between them, in random order."""
    experiments: dict[str, Any] = {}
    for number, (check, flags) in enumerate(FAULTS.values()):
        if check != ONCE_A_SERVER:
            experiments[f"fault{number}"] = {"server": flags, "repeats": times}
            continue
        for one in range(times):
            experiments[f"fault{number}-{one}"] = {"server": {**flags, "max-model-len": 400 + one}}
    for number in range(len(FAULTS)):
        odd = ODD_METRICS if number % 4 == 3 else {}
        experiments[f"clean{number}"] = {"server": {"max-model-len": 512 + number, **odd}, "repeats": times}
    names = list(experiments)
    random.Random(0).shuffle(names)
    return {
        "engines": {"mock": {"adapter": "mock"}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"short": {"kind": "random", "requests": 64, "prompt_tokens": 32, "output_tokens": 40}},
        "sweeps": {
            "faults": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": 8,
                    "server": CLEAN,
                    "load": {"requests": 60, "warmup_requests": 4},
                },
                "experiments": {name: experiments[name] for name in names},
            }
        },
        "collectors": {"interval_s": 0.1},
    }


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config(times), sort_keys=False))
        run = [SNAKEMAKE, "-j1", "--quiet", "all", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", name]
        subprocess.run([*run, "--configfile", str(path)], check=True, cwd=REPOSITORY)
        points = [json.loads(one.read_text()) for one in folder.glob("results/points/*/point.json")]
    report(points, times)
    print("\n| fault of the client's side | check | found |\n| --- | --- | --- |")
    for name, (check, inflicted) in CLIENT_FAULTS.items():
        found = sum(check in inflicted() for _ in range(times))
        print(f"| {name} | `{check}` | {found} of {times} |", flush=True)
    return 0


def stopped_session() -> list[str]:
    """Return the checks of a point whose session was stopped for 1.2 s of about 10."""
    with tempfile.TemporaryDirectory() as name:
        process = _session(Path(name), {"batch_cap": 4, "load": {"requests": 100, "warmup_requests": 1}}, [])
        assert process.stderr is not None
        next(line for line in process.stderr if "server ready" in line)
        time.sleep(4)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        return _checks(process, Path(name))


def few_files() -> list[str]:
    """Return the checks of a point whose session may not open as many files as it has requests."""
    load = {"requests": 120, "warmup_requests": 1}
    with tempfile.TemporaryDirectory() as name:
        changes = {"batch_cap": 120, "cap_side": "server", "load": load}
        return _checks(_session(Path(name), changes, ["prlimit", "--nofile=80:80"]), Path(name))


def late_process() -> list[str]:
    """Return the checks of a load from two processes that are told of the window 0.2 s after its begin."""
    workers.LEAD_S, before = -0.2, workers.LEAD_S
    try:
        with MockServer("--step-base-ms", "10") as mock, tempfile.TemporaryDirectory() as name:
            plan = LoadPlan("mock", "closed", 40, concurrency=4)
            prompts = [Prompt(20, [10 + index] * 8) for index in range(40)]
            result = asyncio.run(workers.run_in_processes(plan, prompts, [mock.url], 2, Path(name)))
    finally:
        workers.LEAD_S = before
    record = {"load": {"arrival": "closed", "concurrency": 4}, "dataset": {"kind": "random"}}
    found = judge(Evidence(record, summarize(result), dataclasses.asdict(result.health)))
    return [one.check for one in found.reasons]


CLIENT_FAULTS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "session stopped for 1.2 s (SIGSTOP)": ("client_standstill", stopped_session),
    "80 open files for 120 requests": ("client_limit", few_files),
    "client process that begins 0.2 s late": ("late_start", late_process),
}


def _session(folder: Path, changes: dict[str, Any], before: list[str]) -> "subprocess.Popen[str]":
    """Start a session of one point on the simulated engine; `before` goes in front of its command."""
    whole = config(1)
    fixed = {**whole["sweeps"]["faults"]["fixed"], **changes}
    whole["datasets"]["short"]["requests"] = 128
    whole["sweeps"] = {"one": {"fixed": fixed}}
    study = load_study(whole)
    (name,) = study.sessions
    plan = study.session_plan(name)
    write_inputs(plan, folder / "results")
    (folder / "plan.json").write_text(canonical_json(plan))
    script = str(REPOSITORY / "workflow/scripts/run_session.py")
    command = [sys.executable, script, "--plan", str(folder / "plan.json"), "--results", str(folder / "results")]
    return subprocess.Popen([*before, *command], stderr=subprocess.PIPE, text=True)


def _checks(process: "subprocess.Popen[str]", folder: Path) -> list[str]:
    process.communicate()
    (path,) = folder.glob("results/points/*/point.json")
    return list(json.loads(path.read_text())["flags"])


def report(points: list[dict[str, Any]], times: int) -> None:
    """Print how many of each fault were found, and the alarms of the clean points."""
    asked = {json.dumps({**CLEAN, **flags}, sort_keys=True): name for name, (_, flags) in FAULTS.items()}
    found: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    clean = 0
    for point in points:
        checks = [reason["check"] for reason in point["verdict"]["reasons"]]
        flags = point["record"]["server"]["args"]
        if "stall" in str(flags.get("fault")):
            flags = {name: value for name, value in flags.items() if name != "max-model-len"}
        fault = asked.get(json.dumps(flags, sort_keys=True))
        if fault is None:
            clean += 1
            alarms.update(checks or ["none"])
        elif FAULTS[fault][0] in checks:
            found[fault] += 1
    print("| fault | check | found |\n| --- | --- | --- |")
    for name, (check, _) in FAULTS.items():
        print(f"| {name} | `{check}` | {found[name]} of {times} |")
    wrong = clean - alarms.pop("none", 0)
    what = ", ".join(f"{check} {count}" for check, count in alarms.items()) or "none"
    print(f"\nclean points: {clean}, with a false alarm: {wrong} ({what})")


if __name__ == "__main__":
    sys.exit(main())
