"""What this machine has, and what each missing part would unlock."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from memgap.cores import usable_cores
from memgap.engine.identity import engine_python, engine_record
from memgap.host.caches import writable
from memgap.host.ports import free_port
from memgap.roofline.gpus import differences, gpu_of_hardware
from memgap.telemetry.nvml import Nvml

NEEDED_DISK_GB = 20


@dataclass(frozen=True)
class Finding:
    """One part: whether it is there, what was found, and what it is for."""

    part: str
    present: bool
    detail: str
    unlocks: str


def findings() -> list[Finding]:
    """Look at this machine; nothing is started or changed."""
    return [
        _python(),
        _engine(),
        _gpu(),
        _program("nsys", ["--version"], "kernel timelines and GPU metrics over time"),
        _program("ncu", ["--version"], "rooflines, stalls and cache hit rates of single kernels"),
        _program("nvidia-cuda-mps-control", None, "replicas that share a GPU through NVIDIA MPS"),
        _program("apptainer", ["--version"], "sessions in containers (`--sdm apptainer`, profiles/slurm)"),
        _program("sbatch", ["--version"], "sessions as Slurm jobs (`--profile profiles/slurm`)"),
        _program("sacct", ["--version"], "job states from slurmdbd; without it set `slurm-status-command: squeue`"),
        _port(),
        _memory(),
        _disk(),
        _home(),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python", sys.version_info >= (3, 11), f"{version} at {sys.executable}", "memgap itself (3.11 or newer)"
    )


def _engine() -> Finding:
    record = engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})
    present = record["version"] != "not-installed"
    detail = (
        f"{record['package']} {record['version']} at {engine_python('auto')}" if present else "none in .venv-engine"
    )
    return Finding("engine", present, detail, "measurements on a real engine (`memgap install`)")


def _gpu() -> Finding:
    with Nvml() as gpu:
        facts = gpu.facts()
        if not facts:
            return Finding("gpu", False, gpu.reason, "GPU measurements; without one vLLM runs on the CPU")
        memory_gb = facts.get("gpu_memory_bytes", 0) / 1e9
        versions = f"driver {facts.get('driver')}, CUDA {facts.get('cuda')}"
        detail = f"{facts['gpu_count']} x {facts.get('gpu_name')}, {memory_gb:.0f} GB, {versions}"
        if gpu_of_hardware(facts) is None:
            detail += "; not in the GPU table, so no shares of its peaks (MBU, MFU) are given"
        detail += "".join(f"; {one}" for one in differences(facts))
        return Finding("gpu", True, detail, "GPU measurements")


def _program(name: str, version_arguments: list[str] | None, unlocks: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "not on PATH", unlocks)
    if version_arguments is None:
        return Finding(name, True, path, unlocks)
    try:
        answer = subprocess.run([path, *version_arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, False, f"{path} does not run: {error}", unlocks)
    lines = [line for line in (answer.stdout or answer.stderr).splitlines() if line.strip()]
    if answer.returncode:
        return Finding(name, False, f"{path} does not run: {lines[-1] if lines else 'no message'}", unlocks)
    return Finding(name, True, f"{lines[-1].strip() if lines else 'no version'} at {path}", unlocks)


def _port() -> Finding:
    try:
        port = free_port()
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
            server.listen()
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return Finding("ports", True, "127.0.0.1 takes connections", "servers on this machine")
    except OSError as error:
        return Finding("ports", False, f"127.0.0.1: {error}", "servers on this machine")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    cores = f"{usable_cores()} of {os.cpu_count()} cores"
    detail = f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free, {cores}"
    return Finding("memory", memory.available > 6e9, detail, "the CPU quickstart needs about 6 GB")


def _disk() -> Finding:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding(
        "disk",
        free_gb > NEEDED_DISK_GB,
        f"{free_gb:.0f} GB free here",
        f"environments and results ({NEEDED_DISK_GB} GB)",
    )


def _home() -> Finding:
    home = Path(os.environ.get("HOME") or "/nonexistent")
    if writable(home):
        return Finding("home", True, f"{home} can be written", "caches of Snakemake and engines")
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache and writable(Path(cache)):
        return Finding("home", True, f"{home} cannot be written, but XDG_CACHE_HOME={cache} can", "caches")
    detail = f"{home} cannot be written; export XDG_CACHE_HOME=FOLDER with one that can"
    return Finding("home", False, detail, "Snakemake, which ends without; engines get a folder of memgap's")


def print_findings(form: str) -> None:
    """Print the findings as text or json."""
    found = findings()
    if form == "json":
        print(json.dumps([asdict(one) for one in found], indent=1))
        return
    width = max(len(one.part) for one in found)
    for one in found:
        mark = "ok     " if one.present else "missing"
        need = "" if one.present else f"  -> would give: {one.unlocks}"
        print(f"{mark}  {one.part.ljust(width)}  {one.detail}{need}")
