"""The GPUs of one server: from its flags and its environment, and from where its processes are seen."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from memgap.engine.given import GivenFlags
from memgap.telemetry.gpus import Choice, found_on, pinned, used
from memgap.telemetry.host import with_children
from memgap.telemetry.nvml import Nvml


def server_gpus(server: Mapping[str, Any], pids: Collection[int] = ()) -> Choice:
    """Return the GPUs that a server record's server uses on this machine; its replicas share them.

    Its environment is this process's with the record's `env`. `pids` are the server's processes once it runs: where
    the driver shows them on other GPUs than the environment says, those are its GPUs.
    """
    flags = GivenFlags.of(server)
    number, environment = flags.gpus_here, environment_of(server)
    with Nvml(environment) as gpu:
        if not gpu.listed:
            return Choice()
        first, step = flags.whole("first_gpu", 0), max(flags.whole("gpu_step", 1), 1)
        choice = used(gpu.listed, environment, number, first, step)
        return found_on(choice, gpu.holding(with_children(pids)), number) if pids else choice


def gpu_variables(server: Mapping[str, Any]) -> dict[str, str]:
    """Return what keeps a server to the GPUs that its container was given, see memgap.telemetry.gpus.pinned."""
    environment = environment_of(server)
    with Nvml(environment) as gpu:
        return pinned(gpu.listed, environment)


def environment_of(server: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a server record's server."""
    return {**os.environ, **server["server"].get("env", {})}
