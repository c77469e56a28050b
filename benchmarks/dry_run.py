"""How long a dry run takes with 100, 1,000 and 10,000 points: `python benchmarks/dry_run.py`.

Prints a Markdown row for each size: sessions, wall seconds of `snakemake --dry-run` (median of the runs), and the ratio
to `snakemake --version`, the part that is Snakemake's own start. Points are ten to a session unless --per-session says
otherwise.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


def config(points: int, per_session: int) -> dict[str, Any]:
    """Return a configuration of about that many points, `per_session` caps on each server."""
    servers = max(1, points // per_session)
    return {
        "engines": {"mock": {"adapter": "mock"}},
        "models": {"tiny-opt": {"weights": "synthetic"}},
        "datasets": {"short": {"kind": "random", "requests": 64, "prompt_tokens": 16, "output_tokens": 16}},
        "sweeps": {
            "many": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": list(range(1, per_session + 1)),
                    "server": {"max-num-batched-tokens": list(range(1000, 1000 + servers))},
                    "load": {"requests": 8},
                }
            }
        },
        "figures": {"fig02": {"sweep": "many"}},
    }


def seconds(command: list[str], runs: int) -> float:
    """Return the median wall time of a command."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--per-session", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    base = seconds([SNAKEMAKE, "--version"], options.runs)
    print(f"snakemake --version: {base:.2f} s\n")
    print("| points | sessions | dry run, s | ratio to --version |\n| --- | --- | --- | --- |")
    for points in options.points:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(yaml.safe_dump(config(points, options.per_session)))
            command = [SNAKEMAKE, "--dry-run", "--quiet", "all", "--directory", folder, "--configfile", str(path)]
            took = seconds(command, options.runs)
        print(f"| {points} | {max(1, points // options.per_session)} | {took:.2f} | {took / base:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
