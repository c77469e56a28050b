"""Does memgap measure on real vLLM what `vllm bench serve` measures?

`python benchmarks/parity_vllm.py [--rounds 6] [--streams 8] [--requests 48]` starts a vLLM server with a tiny synthetic
model and sends it the same load by both clients in turn: random prompts of one length, outputs of one length, closed
loop. Prints the ratios memgap / `vllm bench serve` of throughput, TTFT and TPOT: the median of the rounds and their
range. On a CPU the clients would take the engine's cores, a heavier client more of them: so the server is pinned to all
cores but the last and the clients to the last (`--no-pin` leaves both free and shows what that does).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from memgap.config.load import check_config
from memgap.datasets import build_dataset, resolve_dataset, warmup_prompts
from memgap.engine.identity import engine_python
from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer
from memgap.load.latency import summarize
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run
from memgap.models import write_synthetic_model
from memgap.points.point import server_record
from memgap.study.study import expand_study

HERE = Path(__file__).resolve().parent
METRICS = ("output_throughput_tok_s", "ttft_mean_ms", "tpot_mean_ms")
THEIRS = ("output_throughput", "mean_ttft_ms", "mean_tpot_ms")


def config(streams: int, requests: int, tokens: int) -> dict[str, object]:
    """Return a study of one point, whose server both clients load."""
    server = {"max-model-len": 512, "enable-prefix-caching": False, "kv-cache-memory-bytes": 268435456}
    fixed = {"model": "tiny-opt", "dataset": "same", "batch_cap": streams, "server": server}
    return {
        "engines": {"vllm": {"adapter": "vllm"}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"same": {"kind": "random", "requests": requests, "prompt_tokens": 64, "output_tokens": tokens}},
        "sweeps": {"parity": {"fixed": {**fixed, "load": {"requests": requests}}}},
    }


def pin(pid: int) -> None:
    """Keep the server's threads off the last core, and this process and its children on it."""
    cores = sorted(os.sched_getaffinity(0))
    most = ",".join(map(str, cores[:-1]))
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        subprocess.run(["taskset", "-acp", most, str(process.pid)], check=True, capture_output=True)
    os.sched_setaffinity(0, {cores[-1]})


def ours(server: EngineServer, model: str, streams: int, requests: int, tokens: int, seed: int) -> list[float]:
    """Send the load by memgap; returns the values of `METRICS`."""
    entry = {"kind": "random", "prompt_tokens": 64, "output_tokens": tokens, "seed": seed}
    spec = resolve_dataset("same", {"same": entry}, requests=requests, vocabulary_size=8192)
    prompts = [Prompt(one.output_tokens, one.token_ids) for one in build_dataset(spec)]
    warmup = [Prompt(one.output_tokens, one.token_ids) for one in warmup_prompts(spec, n=streams)]
    plan = LoadPlan(
        model, "closed", requests, concurrency=streams, warmup_requests=streams, api_key=server.api_key, seed=seed
    )
    summary = summarize(run(plan, prompts, [server.url], warmup_prompts=warmup))
    return [summary[name] for name in METRICS]


def theirs(server: EngineServer, folder: Path, model: str, streams: int, requests: int, tokens: int) -> list[float]:
    """Send the load by `vllm bench serve`; returns the values of `THEIRS`."""
    command = [
        *(engine_python("auto"), str(HERE / "peers/vllm_bench.py"), "--backend", "vllm", "--base-url", server.url),
        *("--model", model, "--tokenizer", str(folder / "model"), "--dataset-name", "random", "--ignore-eos"),
        *(
            "--temperature",
            "0",
            "--random-input-len",
            "64",
            "--random-output-len",
            str(tokens),
            "--disable-tqdm",
            "--save-result",
        ),
        *("--num-prompts", str(requests), "--max-concurrency", str(streams), "--num-warmups", str(streams)),
        *("--result-filename", str(folder / "theirs.json"), "--header", f"Authorization=Bearer {server.api_key}"),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    found = json.loads((folder / "theirs.json").read_text())
    assert found["completed"] == requests and found["total_output_tokens"] == requests * tokens, found
    return [found[name] for name in THEIRS]


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--no-pin", dest="pin", action="store_false")
    given = parser.parse_args()
    study = expand_study(check_config(config(given.streams, given.requests, given.tokens)))
    (point,) = study.points.values()
    load = (given.streams, given.requests, given.tokens)
    ratios: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic_model(point.record["model"], folder / "model")
        plan = HostPlan(server_record(point.record), str(folder / "model"), engine_python("auto"), folder, 600)
        server = EngineServer(plan, folder / "log")
        with server:
            server.start()
            if given.pin:
                pin(server.pid)
            ours(server, "tiny-opt", *load, seed=given.rounds)  # both clients find a warm server
            for number in range(given.rounds):
                first_ours = number % 2 == 0
                mine = ours(server, "tiny-opt", *load, seed=number) if first_ours else []
                other = theirs(server, folder, "tiny-opt", *load)
                mine = mine or ours(server, "tiny-opt", *load, seed=number)
                ratios.append([a / b for a, b in zip(mine, other, strict=True)])
                print(f"round {number + 1}: memgap {mine}, vllm bench serve {other}", file=sys.stderr, flush=True)
    print("| metric | memgap / vllm bench serve, median | range |\n| --- | --- | --- |")
    for metric, values in zip(METRICS, zip(*ratios, strict=True), strict=True):
        print(f"| {metric} | {statistics.median(values):.3f} | {min(values):.3f} to {max(values):.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
