"""How long the recorded study takes: `python benchmarks/recorded_study.py [--checkout FOLDER ...]`.

Makes figures and tables of config/recorded.yaml in an empty folder and prints a Markdown row for each checkout: jobs,
wall and CPU seconds of all its processes, and both as ratios to `snakemake --version` in the same run, which cancels
how fast the machine is. On a machine with other load the CPU's ratio is the one to read.
"""

import argparse
import ctypes
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Have processes that outlive their parents become children of this one, so that their CPU time is counted."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_s() -> float:
    """Return the CPU seconds of all children that have ended."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost(command: list[str], checkout: Path, variables: Mapping[str, str]) -> tuple[float, float, str]:
    """Return wall and CPU seconds of a command and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), **variables}
    cpu, began = cpu_s(), time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=checkout, env=environment)
    wall_s = time.monotonic() - began
    return wall_s, cpu_s() - cpu, done.stdout + done.stderr


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, nargs="+", default=[REPOSITORY], help="of the project, to compare")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="Snakemake's -j")
    parser.add_argument("--cold", action="store_true", help="without the warm process")
    options = parser.parse_args(argv)
    adopt_orphans()
    variables = {"MEMGAP_WARM": "0"} if options.cold else {}
    print("| checkout | jobs | wall, s | wall by --version | CPU, s | CPU by --version |")
    print("| --- | --- | --- | --- | --- | --- |")
    for _ in range(options.runs):
        for checkout in (one.resolve() for one in options.checkout):
            starts = [cost([SNAKEMAKE, "--version"], checkout, variables) for _ in range(5)]
            start_wall_s = statistics.median(wall_s for wall_s, _, _ in starts)
            start_cpu_s = statistics.median(used_s for _, used_s, _ in starts)
            with tempfile.TemporaryDirectory() as folder:
                config = str(checkout / "config/recorded.yaml")
                command = [SNAKEMAKE, f"-j{options.jobs}", "figures", "tables", "--directory", folder]
                wall_s, used_s, said = cost([*command, "--configfile", config], checkout, variables)
            jobs = re.search(r"^total +(\d+)", said, re.MULTILINE)
            print(
                f"| {checkout.name} | {jobs[1] if jobs else '?'} | {wall_s:.1f} | {wall_s / start_wall_s:.1f} "
                f"| {used_s:.1f} | {used_s / start_cpu_s:.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
