"""Who is on the GPU before a session starts its server: another's job, or an orphan of an earlier run."""

from collections.abc import Sequence

import psutil

from memgap.telemetry.host import with_children
from memgap.telemetry.nvml import Nvml


def processes_on_gpu(gpus: Sequence[str] | None = None, ours: Sequence[int] = ()) -> list[str]:
    """Return the compute processes on the GPUs of these ids, as "process 12 (python -m x, of user)".

    None asks about the GPUs that this process may use. `ours` are ids of processes that are known to be there.
    """
    with Nvml(only=gpus) as gpu:
        return [_named(pid) for pid in sorted(gpu.processes() - with_children(ours))]


def _named(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            program = " ".join([process.name(), *process.cmdline()[1:3]])
            return f"process {pid} ({program}, of {process.username()})"
    except psutil.Error:
        return f"process {pid}"
