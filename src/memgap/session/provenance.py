"""Where and with what a point was measured."""

import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from memgap import __version__
from memgap.cores import usable_cores
from memgap.host.inherited import inherited
from memgap.redact import redacted_command
from memgap.roofline.gpus import differences
from memgap.shipped import ROOT
from memgap.telemetry.gpus import Choice
from memgap.telemetry.nvml import Nvml

UNKNOWN_HARDWARE: dict[str, Any] = dict.fromkeys(
    ("device", "gpu_name", "gpu_memory_bytes", "driver", "cuda", "cpu_model", "cpu_cores", "host_memory_bytes")
)
"""The machine of a server elsewhere."""


def hardware(gpus: Choice, needed: int = 0) -> dict[str, Any]:
    """Return device ("cuda" with a GPU, else "cpu"), GPUs, driver, CPU and host memory; null where unknown.

    `gpus` are those of the server on this machine, `needed` is how many it is spread over, other machines' included.
    What the driver says of them that the GPU table does not, or why they are unknown, is told in `gpu_doubt`.
    """
    facts: dict[str, Any] = dict.fromkeys(("gpu_name", "gpu_memory_bytes", "driver", "cuda"))
    with Nvml(only=gpus.ids) as gpu:
        facts.update(gpu.facts())
    doubts = [gpus.doubt] if gpus.doubt else differences(facts)
    if 0 < len(gpus.devices) < needed:
        facts["gpu_count_of_server"] = needed
    return {
        "device": "cuda" if facts["gpu_name"] or gpus.doubt else "cpu",
        "gpu_count": 0,
        **facts,
        **({"gpu_doubt": "; ".join(doubts)} if doubts else {}),
        "cpu_model": _cpu_model(),
        "cpu_cores": psutil.cpu_count(),
        "cpu_cores_usable": usable_cores(),
        "host_memory_bytes": psutil.virtual_memory().total,
    }


def provenance(record: Mapping[str, Any], engine_version: str | None, commands: list[list[str]]) -> dict[str, Any]:
    """Return date, a hash of the host's name, versions, the commit of the checkout, each server's exact command, and
    what it inherited of the environment, secrets redacted."""
    return {
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hostname_hash": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
        "memgap_version": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "engine_package": record["engine"]["package"],
        "engine_version": engine_version,
        "commands": [redacted_command(one) for one in commands],
        "environment": inherited(os.environ, record["server"]["env"]),
    }


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def git_commit() -> str | None:
    """Return the checkout's commit; the variable MEMGAP_GIT_COMMIT says it for a copy without history."""
    declared = os.environ.get("MEMGAP_GIT_COMMIT")
    if declared or not (ROOT / ".git").exists():
        return declared
    try:
        commit = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        changed = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"]
        head = subprocess.run(commit, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        dirty = subprocess.run(changed, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if dirty else head
