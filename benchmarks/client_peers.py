"""memgap's load generator beside `vllm bench serve`, GuideLLM and AIPerf: one core each, the same mock server.

`python benchmarks/client_peers.py [--streams 64 256] [--requests-per-stream 4] [--tokens 100]` prints a Markdown table.
The mock is pinned to one core, the client with all its processes to another. The mock's stamps and histograms are the
truth. GuideLLM and AIPerf are installed from benchmarks/peers/*.txt into .peers/ on the first run; `vllm bench serve`
is the engine's. "CPU in the window" is the CPU time of the client's processes between the first and the last token,
"CPU to the end" until the client has exited with its report, both by token; one core's capacity is 1 s by the former.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from memgap.engine.identity import engine_python
from memgap.loopback import fetch, without_proxy
from memgap.mock_server.launch import MockServer
from memgap.models import resolve_model, write_synthetic_model
from memgap.telemetry.histograms import server_latencies
from memgap.telemetry.prometheus import parse_page

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers"
HISTOGRAMS = {"ttft": ("vllm:time_to_first_token_seconds",), "itl": ("vllm:inter_token_latency_seconds",)}


@dataclass(frozen=True)
class Case:
    """One load: `step_ms` 0 means as fast as the mock can."""

    streams: int
    requests: int
    tokens: int
    step_ms: float
    url: str = ""
    tokenizer: Path = Path()
    folder: Path = Path()


@dataclass(frozen=True)
class Reported:
    """What a client reports: tokens, tokens a second, and latencies in ms."""

    tokens: float
    tok_s: float
    ttft_mean_ms: float
    itl_mean_ms: float
    itl_p99_ms: float


def own(case: Case) -> list[str]:
    """Return memgap's command."""
    return [
        *(sys.executable, str(HERE / "peers/own_client.py"), "--url", case.url, "--streams", str(case.streams)),
        *("--requests", str(case.requests), "--tokens", str(case.tokens), "--out", str(case.folder / "own.json")),
    ]


def read_own(case: Case) -> Reported:
    """Read memgap's summary."""
    found = json.loads((case.folder / "own.json").read_text())
    names = ("output_tokens", "output_throughput_tok_s", "ttft_mean_ms", "itl_mean_ms", "itl_p99_ms")
    return Reported(*(found[name] for name in names))


def vllm_bench(case: Case) -> list[str]:
    """Return the command of `vllm bench serve`."""
    return [
        *(engine_python("auto"), str(HERE / "peers/vllm_bench.py"), "--backend", "vllm", "--base-url", case.url),
        *("--model", "mock", "--tokenizer", str(case.tokenizer), "--dataset-name", "random", "--ignore-eos"),
        *("--random-input-len", "16", "--random-output-len", str(case.tokens), "--disable-tqdm", "--save-result"),
        *("--num-prompts", str(case.requests), "--max-concurrency", str(case.streams)),
        *("--result-filename", str(case.folder / "vllm.json")),
    ]


def read_vllm(case: Case) -> Reported:
    """Read the result of `vllm bench serve`."""
    found = json.loads((case.folder / "vllm.json").read_text())
    names = ("total_output_tokens", "output_throughput", "mean_ttft_ms", "mean_itl_ms", "p99_itl_ms")
    return Reported(*(found[name] for name in names))


def guidellm(case: Case) -> list[str]:
    """Return GuideLLM's command."""
    backend = f"kind=openai_http,target={case.url},model=mock,request_format=/v1/completions"
    return [
        *(str(PEERS / "guidellm/bin/guidellm"), "run", "--backend", backend, "--disable-console"),
        *("--profile", f"kind=concurrent,streams={case.streams}"),
        *("--constraint", f"kind=max_requests,count={case.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={case.tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={case.tokens}"),
        *("--output", f"kind=json,path={case.folder / 'guidellm.json'}"),
    ]


def read_guidellm(case: Case) -> Reported:
    """Read GuideLLM's report."""
    found = json.loads((case.folder / "guidellm.json").read_text())["benchmarks"][0]["metrics"]
    itl = found["inter_token_latency_ms"]["successful"]
    tokens = found["output_token_count"]["successful"]["total_sum"]
    rate = found["output_tokens_per_second"]["successful"]["mean"]
    ttft = found["time_to_first_token_ms"]["successful"]["mean"]
    return Reported(tokens, rate, ttft, itl["mean"], itl["percentiles"]["p99"])


def aiperf(case: Case) -> list[str]:
    """Return AIPerf's command."""
    return [
        *(str(PEERS / "aiperf/bin/aiperf"), "profile", "--model", "mock", "--url", case.url, "--streaming"),
        *("--endpoint-type", "completions", "--ui", "none", "--tokenizer", str(case.tokenizer)),
        *("--concurrency", str(case.streams), "--request-count", str(case.requests)),
        *("--synthetic-input-tokens-mean", "16", "--output-tokens-mean", str(case.tokens)),
        *("--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{case.tokens}"),
        *("--artifact-dir", str(case.folder / "aiperf")),
    ]


def read_aiperf(case: Case) -> Reported:
    """Read AIPerf's export."""
    found = json.loads((case.folder / "aiperf/profile_export_aiperf.json").read_text())
    tokens, rate = found["total_output_tokens"]["avg"], found["output_token_throughput"]["avg"]
    itl = found["inter_token_latency"]
    return Reported(tokens, rate, found["time_to_first_token"]["avg"], itl["avg"], itl["p99"])


Tool = tuple[Callable[[Case], list[str]], Callable[[Case], Reported]]
TOOLS: dict[str, Tool] = {
    "memgap": (own, read_own),
    "vllm bench serve": (vllm_bench, read_vllm),
    "GuideLLM": (guidellm, read_guidellm),
    "AIPerf": (aiperf, read_aiperf),
}


class CpuWatch(threading.Thread):
    """Follows the CPU time of a process and all it starts: rows of (monotonic ns, CPU s so far)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.rows: list[tuple[int, float]] = []
        self._root = psutil.Process(pid)
        self._seen: dict[int, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Sample until told to end."""
        while not self._over.wait(0.05):
            try:
                family = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                break
            for process in family:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self._seen[process.pid] = times.user + times.system
            self.rows.append((time.monotonic_ns(), sum(self._seen.values())))

    def end(self) -> None:
        """Stop sampling."""
        self._over.set()
        self.join()

    def cpu_s(self, start_ns: int, end_ns: int | None) -> float:
        """Return the CPU seconds used between two moments, to the last sample without an end."""
        moments = np.array([moment for moment, _ in self.rows], dtype=np.float64)
        used = np.array([cpu for _, cpu in self.rows])
        last = used[-1] if end_ns is None else np.interp(end_ns, moments, used)
        return float(last - np.interp(start_ns, moments, used))


def install(name: str) -> str | None:
    """Make a peer's environment where it is missing; returns why it cannot be had, or None."""
    if name not in ("guidellm", "aiperf") or (PEERS / name / "installed").exists():
        return None
    venv.create(PEERS / name, with_pip=True, clear=True)
    pip = [str(PEERS / name / "bin/pip"), "install", "--quiet", "-r", str(HERE / f"peers/{name}.txt")]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    (PEERS / name / "installed").touch()
    return None


def measure(tool: str, case: Case, cores: tuple[int, int]) -> str:
    """Return a table row."""
    command, read = TOOLS[tool]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        write_synthetic_model(resolve_model("tiny-opt", {"tiny-opt": {"weights": "synthetic"}}), tokenizer)
        options = ["--max-num-seqs", str(case.streams), "--kv-tokens", str(case.streams * 4096)]
        options += ["--step-base-ms", str(case.step_ms), "--stamp-file", str(folder / "stamps.npz")]
        if case.step_ms:
            options.append("--precise-timing")
        with MockServer(*options, core=cores[0], patience_s=120) as mock:
            mine = Case(case.streams, case.requests, case.tokens, case.step_ms, mock.url, tokenizer, folder)
            with (folder / "log").open("wb") as log:
                argv = ["taskset", "-c", str(cores[1]), *command(mine)]
                client = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, env=without_proxy(os.environ))
                watch = CpuWatch(client.pid)
                watch.start()
                status = client.wait()
                watch.end()
            page = parse_page(fetch(f"{mock.url}/metrics", 10)[1].decode())
        if status:
            return f"| {tool} | {case.streams} | failed: {(folder / 'log').read_text()[-200:]!r} |"
        truth = server_latencies({}, page, HISTOGRAMS)
        seen = read(mine)
        with np.load(folder / "stamps.npz", allow_pickle=False) as stamps:
            first_ns, last_ns, written = stamps["time_ns"].min(), stamps["time_ns"].max(), len(stamps["time_ns"])
    window_us = watch.cpu_s(int(first_ns), int(last_ns)) / written * 1e6
    whole_us = watch.cpu_s(int(first_ns), None) / written * 1e6
    offered = f"{case.streams / case.step_ms * 1e3:,.0f}" if case.step_ms else "no limit"
    counts = f"{seen.tokens:,.0f} of {case.requests * case.tokens:,}"
    return (
        f"| {tool} | {case.streams} | {offered} | {written / (last_ns - first_ns) * 1e9:,.0f} | {counts} "
        f"| {window_us:.1f} | {whole_us:.1f} | {1e6 / window_us:,.0f} "
        f"| {seen.ttft_mean_ms:.1f} / {truth['server_ttft_mean_ms']:.1f} "
        f"| {seen.itl_mean_ms:.2f} / {truth['server_itl_mean_ms']:.2f} | {seen.itl_p99_ms:.1f} |"
    )


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--requests-per-stream", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    pair = (cores[0], cores[-1])
    cases: list[Any] = [(streams, 10.0) for streams in given.streams] + [(given.streams[-1], 0.0)]
    print("| client | streams | offered tok/s | written tok/s | tokens counted | CPU in the window, us/token ", end="")
    print("| CPU to the end, us/token | one core's capacity, tok/s | TTFT mean, client / server, ms ", end="")
    print("| ITL mean, client / server, ms | ITL p99, client, ms |")
    print("|" + " --- |" * 11)
    for tool in given.tools:
        if why := install(tool.lower()):
            print(f"| {tool} | not installed: {why} |")
            continue
        for streams, step_ms in cases:
            case = Case(streams, streams * given.requests_per_stream, given.tokens, step_ms)
            print(measure(tool, case, pair), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
