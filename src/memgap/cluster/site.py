"""The site file: what differs from cluster to cluster, in one place; `profiles/slurm` makes its options from it.

Values reach shell commands of Snakemake's Slurm executor, so words with a meaning to a shell are refused here.
Texts are taken as they are written: an account 004711 is not the number 2505 of YAML, a partition `on` not true.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from memgap.config.reading import Written, read_yaml
from memgap.errors import UserError
from memgap.own_yaml import as_number

VARIABLE = "MEMGAP_SITE"
FILE = "site.yaml"
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@%+-]*")
CONSTRAINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@&|()\[\]*-]*")
OPTION = re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9_./,:@%+-]+)?")
BIND = re.compile(r"/[A-Za-z0-9_./@+-]*(:/[A-Za-z0-9_./@+-]*(:(ro|rw))?)?")
STATUS_COMMANDS = ("auto", "sacct", "squeue")


@dataclass(frozen=True)
class Site:
    """A cluster; see profiles/slurm/site.example.yaml for what each field means."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    gpu_model: str | None = None
    exclusive: bool = False
    jobs: int = 50
    retries: int = 2
    save_s: int = 120
    status_command: str = "auto"
    first_status_check_s: int = 40
    containers: bool = True
    nvidia: bool = True
    binds: tuple[str, ...] = ()
    sbatch_options: tuple[str, ...] = ()
    apptainer_options: tuple[str, ...] = ()

    def sbatch_extra(self, to: str = "") -> str:
        """Return the options of sbatch that the executor has no setting of its own for.

        The warning goes to a job's steps, or with "B:" for `to` to the batch script alone.
        """
        signal = [f"--signal={to}TERM@{self.save_s}"] if self.save_s else []
        return " ".join([*signal, *(["--exclusive"] if self.exclusive else []), *self.sbatch_options])

    def default_resources(self) -> list[str]:
        """Return the resources that every submitted job has unless its rule says otherwise, as Snakemake's options."""
        given = {
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gpu_model": self.gpu_model,
            "slurm_extra": self.sbatch_extra() or None,
        }
        words = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        return ["mem_mb=2000", "runtime=30", *words]

    def apptainer_args(self) -> str:
        """Return what is put between `apptainer exec` and the image."""
        binds = [f"--bind {bind}" for bind in self.binds]
        return " ".join([*(["--nv"] if self.nvidia else []), *binds, *self.apptainer_options])

    def known_status_command(self) -> str | None:
        """Return sacct where the cluster has an accounting database, squeue where not; None where there is no Slurm."""
        return accounting_command() if self.status_command == "auto" else self.status_command


def read_site(path: Path) -> Site:
    """Read a site file; raises UserError for what cannot be read, unknown fields and values that do not fit."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), f"the site file {path}", as_written=True)
    except OSError as error:
        raise UserError(f"cannot read the site file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the site file {path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if content is None or (isinstance(content, Written) and content.value is None):
        return Site()
    if not isinstance(content, Mapping):
        raise UserError(f"the site file {path} holds no fields; write them as `partition: gpu`.")
    given = {
        str(name): value for name, value in content.items() if not (isinstance(value, Written) and value.value == "")
    }
    return Site(**{name: _checked(name, value, str(path)) for name, value in given.items()})


def profile_site(arguments: Sequence[str] | None = None) -> Site:
    """Return the site of the profile that is being read: MEMGAP_SITE names its file, else site.yaml beside the profile.

    Without a file everything is left to the cluster. A broken file ends the program with one sentence, since whatever
    is raised here Snakemake reports as its own error.
    """
    try:
        return chosen_site(sys.argv if arguments is None else arguments)
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def chosen_site(arguments: Sequence[str]) -> Site:
    """Return what MEMGAP_SITE's file or that beside the profile says, without one what holds anywhere."""
    path = site_path(arguments)
    return read_site(path) if VARIABLE in os.environ or path.exists() else Site()


def site_path(arguments: Sequence[str]) -> Path:
    """Return the site file that MEMGAP_SITE names, else the one beside the profile that a command line names."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    profiles = [os.environ.get("SNAKEMAKE_PROFILE", "")]
    for place, argument in enumerate(arguments):
        if argument.startswith("--profile="):
            profiles.append(argument.partition("=")[2])
        elif argument == "--profile":
            profiles += arguments[place + 1 : place + 2]
    beside = [Path(one) / FILE for one in reversed(profiles) if one]
    return next((path for path in beside if path.exists()), Path("profiles") / "slurm" / FILE)


def accounting_command() -> str | None:
    """Return the program that knows how jobs ended on this cluster: sacct needs slurmdbd, and says nothing without."""
    if shutil.which("scontrol") is None:
        return None
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    storage = re.search(r"^AccountingStorageType\s*=\s*(\S+)", shown, re.MULTILINE)
    if storage is None:
        return None
    return "sacct" if storage[1].endswith("slurmdbd") and shutil.which("sacct") else "squeue"


def _checked(name: str, value: Any, where: str) -> Any:
    kinds = {field.name: field.type for field in fields(Site)}
    if name not in kinds:
        raise UserError(f"{where}: unknown field {name!r}; known are {', '.join(sorted(kinds))}.")
    kind = kinds[name]
    text, value = (value.text, value.value) if isinstance(value, Written) else (None, value)
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{where}: {name} is true or false, not {value!r}.")
        return value
    if kind is int:
        number = as_number(value) if isinstance(value, str) else value
        whole = int(number) if isinstance(number, float) and number.is_integer() else number
        if isinstance(whole, bool) or not isinstance(whole, int) or whole < 0:
            raise UserError(f"{where}: {name} is a whole number, not {value!r}.")
        return whole
    if kind == tuple[str, ...]:
        pattern = {"binds": BIND}.get(name, OPTION)
        if not isinstance(value, list):
            raise UserError(f"{where}: {name} is a list, not {value!r}.")
        texts = [one.text if isinstance(one, Written) else str(one) for one in value]
        return tuple(_word(os.path.expandvars(one), pattern, name, where) for one in texts)
    if value is None:
        return None
    if text is None:
        raise UserError(f"{where}: {name} is one text, not {value!r}.")
    _word(text, CONSTRAINT if name == "constraint" else WORD, name, where)
    if name == "status_command" and text not in STATUS_COMMANDS:
        raise UserError(f"{where}: status_command is one of {', '.join(STATUS_COMMANDS)}, not {text!r}.")
    return text


def _word(text: str, pattern: re.Pattern[str], name: str, where: str) -> str:
    examples = {"binds": "/scratch/me or /host:/container:ro", "sbatch_options": "--exclude=node7"}
    if not pattern.fullmatch(text):
        hint = f", such as {examples[name]}" if name in examples else ""
        raise UserError(f"{where}: {name}: {text!r} has characters that do not belong there{hint}.")
    return text
