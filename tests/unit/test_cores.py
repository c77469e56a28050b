"""Cores are those that a process may use."""

import os
import subprocess
import sys

from memgap.cores import usable_cores


def test_a_process_that_is_pinned_has_fewer_cores() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    first = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{first}}}); from memgap.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
