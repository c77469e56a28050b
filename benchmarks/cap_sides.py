"""Does a batch cap on the client measure the same as a cap on the server, and what does each cost?

`python benchmarks/cap_sides.py [--engine vllm|mock] [--caps 1 4 16] [--repeats 2]` measures the same points both ways
in one run, through the workflow's own sessions, and prints Markdown tables: for each cap the ratios client / server of
throughput, ITL and average batch, and for each side the servers started and the wall seconds. Closed loop on one warm
server against one server per cap with `--max-num-seqs` and everything sent at once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
METRICS = ("total_throughput_tok_s", "itl_mean_ms", "ttft_mean_ms", "mean_running_reqs", "kv_cache_usage_max_fraction")


def config(engine: str, caps: list[int], repeats: int, requests_per_slot: float) -> dict[str, Any]:
    """Return the sweep: the quickstart's model and workload, both sides."""
    server: dict[str, Any] = {"step-base-ms": 2.0, "step-per-seq-ms": 0.4}
    if engine == "vllm":
        server = {"max-model-len": 1024, "enable-prefix-caching": False, "kv-cache-memory-bytes": 268435456}
    return {
        "engines": {engine: {"adapter": engine}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"chat": {"kind": "sharegpt-like", "requests": 256}},
        "sweeps": {
            "sides": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "chat",
                    "batch_cap": caps,
                    "cap_side": ["client", "server"],
                    "repeats": repeats,
                    "server": server,
                    "load": {"requests_per_slot": requests_per_slot, "min_requests": 16},
                }
            }
        },
    }


def measure(folder: Path, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Run the sweep, one side after the other; return the points and the wall seconds of each side."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    listing = [sys.executable, "-m", "memgap", "list", "--configfile", str(path), "--format", "json"]
    rows = json.loads(subprocess.run(listing, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout)
    wall_s = {}
    for side in ("client", "server"):
        names = dict.fromkeys(row["session"] for row in rows if row["cap_side"] == side)
        targets = [f"results/sessions/{name}.json" for name in names]
        command = [SNAKEMAKE, *targets, "-j1", "--directory", str(folder), "--configfile", str(path)]
        began = time.monotonic()
        subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        wall_s[side] = time.monotonic() - began
    points = [json.loads(found.read_text()) for found in sorted((folder / "results/points").glob("*/point.json"))]
    return points, wall_s


def medians(points: Iterable[dict[str, Any]], cap: int, side: str) -> dict[str, float]:
    """Return the medians of the metrics over the repeats of one cap and side."""
    own = [one for one in points if one["record"]["batch_cap"] == cap and one["record"]["cap_side"] == side]
    return {name: statistics.median(one["summary"][name] for one in own) for name in METRICS}


def main(argv: list[str] | None = None) -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["vllm", "mock"], default="vllm")
    parser.add_argument("--caps", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--requests-per-slot", type=float, default=5)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        settings = config(options.engine, options.caps, options.repeats, options.requests_per_slot)
        points, wall_s = measure(Path(folder), settings)
    print("\n| cap | " + " | ".join(f"{name}, client / server" for name in METRICS) + " |")
    print("| --- " * (len(METRICS) + 1) + "|")
    for cap in options.caps:
        client, server = medians(points, cap, "client"), medians(points, cap, "server")
        cells = (f"{client[name]:.4g} / {server[name]:.4g} = {client[name] / server[name]:.3f}" for name in METRICS)
        print(f"| {cap} | " + " | ".join(cells) + " |")
    print("\n| side | servers started | wall, s |\n| --- | --- | --- |")
    print(f"| client | 1 | {wall_s['client']:.0f} |\n| server | {len(options.caps)} | {wall_s['server']:.0f} |")
    print(f"\ncost of the server side over the client side: {wall_s['server'] / wall_s['client']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
