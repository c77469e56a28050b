"""Runs the real Snakefile in a scratch folder, on the simulated engine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support.processes import arguments, belonging

REPOSITORY = Path(__file__).resolve().parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")

SMALL: dict[str, Any] = {
    "engines": {"mock": {"adapter": "mock", "startup_timeout_s": 600}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {"short": {"kind": "random", "requests": 64, "prompt_tokens": 16, "output_tokens": 16}},
    "sweeps": {
        "small": {
            "fixed": {
                "engine": "mock",
                "model": "tiny-opt",
                "dataset": "short",
                "batch_cap": [1, 2, 4],
                "server": {"step-base-ms": 1.0, "step-per-seq-ms": 0.2},
                "load": {"requests": 8, "warmup_requests": 1},
            }
        }
    },
    "figures": {"fig02": {"sweep": "small"}, "fig03": {"sweep": "small"}, "fig10": {"sweep": "small"}},
    "advisor": {"slo": {"multiple": 3.0, "times_latency_at": 2}},
    "collectors": {"interval_s": 0.05},
}


class Study:
    """A scratch folder with a configuration in it, and Snakemake to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: int | None = 1
        self.config: dict[str, Any] = json.loads(json.dumps(SMALL))

    @property
    def fixed(self) -> dict[str, Any]:
        """The arguments of the small sweep."""
        arguments: dict[str, Any] = self.config["sweeps"]["small"]["fixed"]
        return arguments

    def command(self, *arguments: str) -> list[str]:
        """Write the configuration and return Snakemake's command line."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        return [
            SNAKEMAKE,
            *arguments,
            *([] if self.jobs is None else [f"-j{self.jobs}"]),
            *("--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(self.folder)),
            *("--configfile", str(self.folder / "config.yaml")),
        ]

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run Snakemake to its end; returns everything it printed."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, cwd=REPOSITORY, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == expect, printed
        return printed

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a process group of its own."""
        with (self.folder / "driver.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*arguments), stdout=log, stderr=log, cwd=REPOSITORY, start_new_session=True
            )

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run announces."""
        printed = self.run("--dry-run", "--quiet", "rules", *arguments)
        counts: dict[str, int] = {}
        for line in printed.splitlines():
            parts = line.split()
            if len(parts) == 2 and parts[1].isdigit() and parts[0] not in ("total", "job"):
                counts[parts[0]] = int(parts[1])
        return counts

    def points(self) -> dict[int, dict[str, Any]]:
        """Return the stored points by batch cap."""
        found = {}
        for path in sorted((self.folder / "results" / "points").glob("[!.]*/point.json")):
            point = json.loads(path.read_text())
            found[point["record"]["batch_cap"]] = point
        return found

    def measured_at(self) -> dict[str, int]:
        """Return when each stored point was written, by key."""
        paths = (self.folder / "results" / "points").glob("[!.]*/point.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in paths}

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that work for this folder: sessions, supervisors, servers, samplers."""
        marks = (str(self.folder), "memgap.mock_server", "memgap.telemetry.sampler", "memgap.host.supervisor")
        lines = {one: " ".join(arguments(one)) for one in belonging(self.folder)}
        return [one for one, line in lines.items() if any(mark in line for mark in (*marks, "run_session.py"))]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return an empty study whose processes can be told from others by their environment."""
    monkeypatch.setenv("MEMGAP_TEST_FOLDER", str(tmp_path))
    monkeypatch.delenv("MEMGAP_CONFIG", raising=False)
    return Study(tmp_path)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a signal to one process only and wait for its end."""
    os.kill(process.pid, number)
    process.wait()
