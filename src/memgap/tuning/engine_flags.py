"""The flags that an engine has, asked once for each version and kept; nothing where it cannot be asked here."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.engine.adapters import adapter_for
from memgap.engine.identity import engine_python
from memgap.store.atomic import write_text

ASK_TIMEOUT_S = 300.0
LEAST_FLAGS = 5
"""A help text with fewer flags than these is none."""
_FLAG = re.compile(r"--([a-z0-9][a-z0-9-]*)")


def engine_flags(server: Mapping[str, Any], python: str, cache: Path) -> frozenset[str] | None:
    """Return the engine's flags without the dashes, or None where it does not tell: it may be on another machine.

    `server`: a point's record; `cache`: the folder where the answer for this version is kept.
    """
    engine = server["engine"]
    kept = cache / f"{engine['package']}-{engine['version']}.json"
    try:
        return frozenset(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    command = _command(server, python)
    for asking in ("--help=all", "--help"):  # vLLM tells its groups only, unless it is asked for all
        try:
            done = subprocess.run(
                [*command, asking], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        found = frozenset(_FLAG.findall(done.stdout)) - {"help"}
        if done.returncode == 0 and len(found) >= LEAST_FLAGS:
            write_text(kept, json.dumps(sorted(found)) + "\n")
            return found
    return None


def _command(server: Mapping[str, Any], python: str) -> list[str]:
    """Return how the engine's server is started, up to its first flag."""
    bare = {**server, "server": {**server["server"], "args": {}}}
    launch = adapter_for(server["engine"]["adapter"]).launch(engine_python(python), bare, "model", 1, "")
    flags = [place for place, part in enumerate(launch.argv) if part.startswith("--")]
    return launch.argv[: flags[0]] if flags else launch.argv
