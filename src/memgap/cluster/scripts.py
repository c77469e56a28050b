"""Plans and Slurm scripts of a configuration's sessions, written and not submitted.

For a cluster where Snakemake cannot submit, or to see exactly what a job would be. A script that was submitted by hand
fills the store; Snakemake finds its points there.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.cluster.site import Site
from memgap.config.files import read_config_files
from memgap.containers.jobs import prepare_images
from memgap.shipped import SCRIPTS
from memgap.store.atomic import write_text
from memgap.store.results import Results
from memgap.study.resources import session_gpus, session_runtime_min
from memgap.study.study import Study
from memgap.workflow import load_study

FOLDER = Path("jobs")
ENTRY_POINT = SCRIPTS / "run_session.py"


def write_scripts(study: Study, site: Site, results: Path) -> list[Path]:
    """Write results/plans/NAME.json and results/jobs/NAME.sh of each session that has points to measure.

    Returns the scripts. Raises OSError where nothing can be written.
    """
    store = Results(results).store
    written = []
    inside: dict[str, str] = {}
    records = [point.record for point in study.points.values()]
    prepare_images(study.config["engines"], records, ENTRY_POINT.parent, inside)
    for session, keys in study.sessions.items():
        if all(store.status(key) not in ("missing", "garbled") for key in keys):
            continue
        plan = Results(results).plan(session)
        write_text(plan, canonical_json(study.session_plan(session)) + "\n")
        record = study.points[keys[0]].record
        script = results / FOLDER / f"{session}.sh"
        image = study.config["engines"][record["engine"]["name"]]["image"] if site.containers else None
        container = (image, inside) if image else None
        write_text(script, job_script(session, record, study.config["resources"], site, plan, results, container))
        script.chmod(0o755)
        written.append(script)
    return written


def job_script(
    session: str,
    record: Mapping[str, Any],
    resources: Mapping[str, Any],
    site: Site,
    plan: Path,
    results: Path,
    container: tuple[str, Mapping[str, str]] | None = None,
) -> str:
    """Return the Slurm script that measures a session's plan, with the same resources as Snakemake would ask for.

    `container` is the image that it runs in, with the variables that Apptainer needs.
    """
    options = sbatch_options(session, record, resources, site)
    image, variables = container or (None, {})
    run = ["python" if image else sys.executable, os.path.relpath(ENTRY_POINT), "--plan", str(plan)]
    run += ["--results", str(results), "--log", f"logs/sessions/{session}.log"]
    if image:
        run = ["apptainer", "exec", "--home", os.getcwd(), *site.apptainer_args().split(), image, *run]  # noqa: PTH109
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "set -euo pipefail",
        f"cd {shlex.quote(os.getcwd())}",  # noqa: PTH109
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        f"exec {shlex.join(run)}",
    ]
    return "\n".join(lines) + "\n"


def sbatch_options(session: str, record: Mapping[str, Any], resources: Mapping[str, Any], site: Site) -> list[str]:
    """Return the options of sbatch for a session's first try."""
    gpus = session_gpus(record, resources)
    given = {
        "job-name": f"memgap-{session}",
        "output": f"logs/sessions/{session}.slurm-%j.log",
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "reservation": site.reservation,
        "constraint": site.constraint,
        "nodes": resources["nodes"],
        "cpus-per-task": resources["cpus"],
        "mem": f"{resources['mem_mb']}M",
        "time": session_runtime_min(resources, attempt=1),
        "gpus": (f"{site.gpu_model}:{gpus}" if site.gpu_model else gpus) if gpus else None,
    }
    # the script becomes the session by exec, so that the warning of the time limit has to go to the script
    extra = site.sbatch_extra(to="B:").split()
    return [*(f"--{name}={value}" for name, value in given.items() if value is not None), *extra]


def print_scripts(configfiles: Sequence[Path], site: Site, results: Path) -> None:
    """Write the scripts and say what to do with them; raises UserError for a broken configuration."""
    study = load_study(read_config_files(configfiles))
    written = write_scripts(study, site, results)
    for script in written:
        print(script)
    if written:
        Path("logs/sessions").mkdir(parents=True, exist_ok=True)
        print(f"{len(written)} scripts written, nothing submitted. `snakemake staged` makes the files that they read;")
        print("then submit them with `sbatch FILE` in this folder. Snakemake finds in the store what they measured.")
    else:
        print("all points are in the store; there is nothing to submit")
