"""The command line of a group's router: this project's own, or one of the routers of vLLM and SGLang as they come.

Theirs live in an environment of their own (`.venv-routers`, or the interpreter that MEMGAP_ROUTERS_PYTHON names); the
release belongs to a point, so it is named in the configuration and compared with what is installed.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgap.engine.disaggregation import BOOTSTRAP, DECODE, FOREIGN, NIXL, PREFILL, protocol_of
from memgap.engine.failure import ServerFailureError
from memgap.engine.flags import flag_list
from memgap.host.ports import free_port

FOLDER, VARIABLE = ".venv-routers", "MEMGAP_ROUTERS_PYTHON"
_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


@dataclass(frozen=True)
class Behind:
    """A member as its router knows it."""

    name: str
    role: str
    url: str
    bootstrap_port: int | None = None


def router_command(router: Mapping[str, Any], members: Sequence[Behind], port: int) -> list[str]:
    """Return the argument list of a record's router.

    Raises ServerFailureError ("bad_config") where another project's is not installed in the release that is named.
    """
    kind = router["kind"]
    if kind not in FOREIGN:
        command = [sys.executable, "-m", "memgap.router", "--port", str(port), "--policy", kind]
        for one in members:
            who = ":".join([one.name, one.role, *([str(one.bootstrap_port)] if one.bootstrap_port else [])])
            command += ["--member", f"{who}={one.url}"]
        return command
    python = _python(kind, router["version"])
    command = [python, "-m", f"{kind.replace('-', '_')}.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    return [*command, *_workers(kind, members), *flag_list(router["args"])]


def _workers(kind: str, members: Sequence[Behind]) -> list[str]:
    if not any(one.role for one in members):
        return ["--worker-urls", *(one.url for one in members)]
    flags = {NIXL: "--vllm-pd-disaggregation", BOOTSTRAP: "--pd-disaggregation"}
    command = [flags[protocol_of(kind)]]
    for one in members:
        port = [str(one.bootstrap_port)] if one.bootstrap_port else []
        command += {PREFILL: ["--prefill", one.url, *port], DECODE: ["--decode", one.url]}[one.role]
    return command


def _python(package: str, version: str) -> str:
    python = os.environ.get(VARIABLE) or str(Path(FOLDER) / "bin" / "python")
    how = f"`python3 -m venv {FOLDER} && {FOLDER}/bin/pip install {package}=={version}`"
    try:
        asked = subprocess.run([python, "-c", _VERSION, package], capture_output=True, text=True, check=False)
    except OSError:
        raise ServerFailureError("bad_config", f"{package} is not installed: {how}", "", hopeless=True) from None
    if asked.returncode or asked.stdout.strip() != version:
        found = asked.stdout.strip() or "none"
        raise ServerFailureError(
            "bad_config", f"the point is of {package} {version}, {python} has {found}: {how}", "", hopeless=True
        )
    return python
