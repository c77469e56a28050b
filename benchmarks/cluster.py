"""What a cluster costs: the same small sweep on this machine, as Slurm jobs, and as Slurm jobs in Apptainer.

    python benchmarks/cluster.py                                                     # on a cluster
    python tests/cluster/slurm_cluster.py .venv/bin/python benchmarks/cluster.py     # on a throw-away one

The sweep is two servers of the simulated engine with two points each. Prints a Markdown row for each way to run it,
medians of the repeats. Apptainer is part of it where `--image` names an image with this package in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


@dataclass(frozen=True)
class Run:
    """Seconds of one run; medians over its jobs where there are several, None where it has none."""

    wall_s: float
    first_measurement_s: float
    submit_to_session_s: float | None
    session_to_job_end_s: float | None


def config(image: str | None) -> dict[str, Any]:
    """Return the small sweep."""
    return {
        "engines": {"mock": {"adapter": "mock", "image": image}},
        "models": {"tiny-opt": {"weights": "synthetic"}},
        "datasets": {"short": {"kind": "random", "requests": 64, "prompt_tokens": 16, "output_tokens": 16}},
        "sweeps": {
            "smoke": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": [4, 8],
                    "server": {"step-base-ms": [5, 10]},
                    "load": {"requests": 32},
                }
            }
        },
        "resources": {"runtime_min": 10, "mem_mb": 2000, "cpus": 2},
    }


def run(slurm: bool, image: str | None, site: dict[str, Any]) -> Run:
    """Run the sweep in a folder of its own and return what it took; raises CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config(image), sort_keys=False))
        (folder / "site.yaml").write_text(yaml.safe_dump({**site, "containers": image is not None}))
        how = ["--profile", "profiles/slurm"] if slurm else ["-j1"]
        command = [SNAKEMAKE, *how, "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", name]
        command += ["--configfile", str(folder / "config.yaml"), "--", "results/tables/smoke.csv"]
        known = set(jobs()) if slurm else set()
        began_s = time.time()
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "MEMGAP_SITE": str(folder / "site.yaml")},
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s = time.time() - began_s
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            done.check_returncode()
        points = [json.loads(path.read_text()) for path in folder.glob("results/points/*/point.json")]
        first_s = min(point["window"]["start_unix_s"] for point in points) - began_s
        if not slurm:
            return Run(wall_s, first_s, None, None)
        waits, ends = [], []
        for job, facts in jobs().items():
            if job in known:
                continue
            session = facts["Comment"].partition("_wildcards_")[2]
            waits.append((folder / f"results/plans/{session}.json").stat().st_mtime - unix_s(facts["SubmitTime"]))
            # not the session's output, whose time Snakemake's driver sets anew
            ends.append(unix_s(facts["EndTime"]) - (folder / f"logs/sessions/{session}.log").stat().st_mtime)
        return Run(wall_s, first_s, statistics.median(waits), statistics.median(ends))


def jobs() -> dict[str, dict[str, str]]:
    """Return what Slurm knows of jobs by id; times are whole seconds."""
    shown = subprocess.run(
        ["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    facts = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in shown]
    return {one["JobId"]: one for one in facts if "JobId" in one}


def unix_s(text: str) -> float:
    """Return a time of Slurm's as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def row(name: str, runs: list[Run]) -> str:
    """Return the medians as a row."""

    def median(values: list[float | None]) -> str:
        present = [value for value in values if value is not None]
        return f"{statistics.median(present):.1f}" if present else ""

    fields = ("wall_s", "first_measurement_s", "submit_to_session_s", "session_to_job_end_s")
    return f"| {name} | " + " | ".join(median([getattr(one, field) for one in runs]) for field in fields) + " |"


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="Apptainer image with this package in it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--site", type=Path, help="site file; the cluster's default partition without it")
    given = parser.parse_args(argv)
    site = {"first_status_check_s": 1, "nvidia": False}
    if given.site:
        site = {**yaml.safe_load(given.site.read_text()), **site}
    ways: list[tuple[str, bool, str | None]] = [("this machine, -j1", False, None), ("Slurm", True, None)]
    if given.image:
        ways.append(("Slurm and Apptainer", True, str(given.image.resolve())))
    runs: dict[str, list[Run]] = {name: [] for name, _, _ in ways}
    for _ in range(given.repeats):
        for name, slurm, image in ways:
            runs[name].append(run(slurm, image, site))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    print(f"medians of {given.repeats} runs; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end\n")
    print("| where | wall, s | to the first measurement, s | submission to session, s | session to job's end, s |")
    print("| --- | --- | --- | --- | --- |")
    for name, _, _ in ways:
        print(row(name, runs[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
