"""A throw-away Slurm cluster on this machine: real daemons from Debian's packages, two virtual nodes, made-up GPUs.

    python tests/cluster/slurm_cluster.py COMMAND...    # the cluster lives as long as the command

It needs root. The configuration has to be found at /etc/slurm, since programs that Slurm starts for a job step do not
pass SLURM_CONF on. So this process gets mounts of its own, in which /etc/slurm is the cluster's, and any number of
clusters live on a machine without knowing of one another. Where mounts are not allowed, /etc/slurm gets links instead,
and a lock beside it lets one cluster live at a time. What is real: queue, partitions, cores, memory and GPUs being
handed out, CUDA_VISIBLE_DEVICES, time limits, signals, node failures, job arrays. What is not: the GPUs (links to
/dev/null), memory limits being enforced, accounts and sacct (there is no database).
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
ETC = Path("/etc/slurm")
LINKS_LOCK = Path("/etc/slurm.memgap-tests.lock")
"""Held while /etc/slurm has links to a cluster's configuration."""
INSTALL_LOCK = Path("/var/lib/memgap-tests-install.lock")
CONFIGURATION = ("slurm.conf", "gres.conf")
FOLDER_PREFIX = "memgap-slurm-"
FOLDER = "MEMGAP_SLURM_TESTS"
"""Variable by which a cluster's daemons are known."""
ALIVE = "alive"
"""A file in a cluster's folder that is locked as long as the process lives that started it."""
LAST_RESORT_S = 600.0
"""Nothing takes so long, however busy the machine is."""
START_TRIES = 3
"""Another program may take a port between its choice and its use."""
PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000


class UnavailableError(Exception):
    """This machine cannot have the cluster; the text says why."""


@dataclass(frozen=True)
class Size:
    """What the virtual nodes claim to have, each: jobs are admitted by it, not made faster."""

    nodes: int = 2
    cpus: int = 16
    memory_mb: int = 64000
    gpus: int = 2
    gpu_model: str = "h200"


class SlurmCluster:
    """The cluster; a context manager that starts it and takes everything away again.

    Partitions: `gpu` (the default one, a day) and `short` (30 minutes), both of all nodes. Nodes: node1, node2, ...
    """

    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.nodes = [f"node{number + 1}" for number in range(self.size.nodes)]
        self.name = f"memgap{secrets.token_hex(4)}"
        self.folder = Path()
        self._locks: list[Any] = []
        self._mounted = False
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Start the cluster; raises UnavailableError where this machine cannot have one."""
        require_programs()
        clear_leftovers()
        own = own_mounts()
        if not own:
            require_no_other_slurm()
            self._locks.append(locked(LINKS_LOCK))
        for tries_left in reversed(range(START_TRIES)):
            self._make_folder()
            try:
                self._start(own)
                break
            except UnavailableError:
                self._end()
                if not tries_left:
                    raise
            except BaseException:
                self._end()
                self._unlock()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel all jobs, end the daemons, remove files, mounts and links."""
        self._end()
        self._unlock()

    # --- what tests use

    def squeue(self, *fields: str) -> list[tuple[str, ...]]:
        """Return the waiting and running jobs, a tuple of the named squeue fields each (JobID, State, NodeList ...)."""
        asked = fields or ("JobArrayID", "State", "NodeList", "Comment")
        printed = run_program("squeue", "--noheader", "--states=PD,R,CG,CF,S", "-O", ",".join(f"{f}:|" for f in asked))
        return [tuple(cell.strip() for cell in line.split("|")[: len(asked)]) for line in printed.splitlines()]

    def running(self) -> list[str]:
        """Return the ids of the running jobs."""
        return [job for job, state in self.squeue("JobArrayID", "State") if state == "RUNNING"]

    def job(self, job: str) -> dict[str, str]:
        """Return what Slurm knows of a job, an ended one as well: JobState, TimeLimit, TresPerJob ..."""
        return _pairs(run_program("scontrol", "--oneliner", "show", "job", job))

    def jobs(self) -> list[dict[str, str]]:
        """Return all jobs since the cluster's start, in order."""
        printed = run_program("scontrol", "--oneliner", "show", "job")
        found = [_pairs(line) for line in printed.splitlines() if line.startswith("JobId=")]
        return sorted(found, key=lambda one: int(one["JobId"]))

    def scancel(self, *arguments: str) -> None:
        """Cancel jobs by id, or whatever else scancel takes."""
        run_program("scancel", *arguments)

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left."""
        jobs = {job for (job,) in self.squeue("JobID")}
        if jobs:
            self.scancel(*jobs)
        wait_for(lambda: self.squeue("JobID") == [], "jobs do not end after scancel")

    def stop_node(self, node: str) -> None:
        """Let a node fail as a power cut would: its slurmd and all its jobs' processes are killed, Slurm is told."""
        self._kill(node)
        for process in job_processes(self.name, node):
            with contextlib.suppress(psutil.Error):
                process.kill()
        run_program("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=stopped by a test")

    def start_node(self, node: str) -> None:
        """Bring a node back; nothing happens where it is up."""
        if node not in self._daemons:
            self._daemon(node, ["slurmd", "-D", "-N", node])
        run_program("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        wait_for(lambda: node in self.nodes_up(), f"{node} does not come up")

    def nodes_up(self) -> set[str]:
        """Return the nodes that take jobs."""
        lines = run_program("sinfo", "--noheader", "--Node", "--format=%N %t", check=False).splitlines()
        return {name for name, state in map(str.split, lines) if state in ("idle", "mix", "alloc", "comp")}

    # --- start and end

    def _make_folder(self) -> None:
        """Make the cluster's folder, which has its name only once it is locked."""
        new = Path(tempfile.mkdtemp(prefix="memgap-new-"))
        self._locks.append(locked(new / ALIVE))
        self.folder = new.rename(new.with_name(f"{FOLDER_PREFIX}{self.name.removeprefix('memgap')}{len(self._locks)}"))

    def _start(self, own_mounts: bool) -> None:
        for name in ("etc", "run", "log", "state", "spool", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        for number in range(self.size.gpus):
            # Slurm sets CUDA_VISIBLE_DEVICES only for a character device, by the number in its name
            (self.folder / "dev" / f"nvidia{number}").symlink_to("/dev/null")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        (self.folder / "etc/slurm.conf").write_text(self._slurm_conf())
        (self.folder / "etc/gres.conf").write_text(
            f"NodeName={','.join(self.nodes)} Name=gpu Type={self.size.gpu_model}"
            f" File={self.folder}/dev/nvidia[0-{self.size.gpus - 1}]\n"
        )
        ETC.mkdir(exist_ok=True)
        if own_mounts:
            run_program("mount", "--bind", str(self.folder / "etc"), str(ETC))
            self._mounted = True
        else:
            for name in CONFIGURATION:
                (ETC / name).unlink(missing_ok=True)
                (ETC / name).symlink_to(self.folder / "etc" / name)

        run = self.folder / "run"
        munge = {"key-file": key, "socket": run / "munge", "pid-file": run / "munged.pid", "seed-file": run / "seed"}
        options = [f"--{name}={path}" for name, path in munge.items()]
        self._daemon("munged", ["munged", "--foreground", "--force", *options])
        wait_for((run / "munge").exists, "munged does not start", self)
        self._daemon("slurmctld", ["slurmctld", "-D"])
        wait_for(
            lambda: "is UP" in run_program("scontrol", "ping", check=False),
            "slurmctld does not start",
            self,
        )
        for node in self.nodes:
            self._daemon(node, ["slurmd", "-D", "-N", node])
        wait_for(lambda: self.nodes_up() == set(self.nodes), "not every node comes up", self)

    def _slurm_conf(self) -> str:
        size, folder = self.size, self.folder
        host = socket.gethostname().split(".")[0]
        ports = free_ports(1 + size.nodes)
        settings = {
            "ClusterName": self.name,
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": ports[0],
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/run/munge",
            "CredType": "cred/munge",
            "MpiDefault": "none",
            "StateSaveLocation": f"{folder}/state",
            "SlurmdSpoolDir": f"{folder}/spool/%n",
            "SlurmctldPidFile": f"{folder}/run/slurmctld.pid",
            "SlurmdPidFile": f"{folder}/run/slurmd-%n.pid",
            # plain process trees, so that it runs in a container, where cgroups are not ours
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "GresTypes": "gpu",
            "AccountingStorageType": "accounting_storage/none",
            # ended jobs stay visible for the whole test
            "MinJobAge": 3600,
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
            "KillWait": 5,
            "SlurmdTimeout": 120,
            "InactiveLimit": 0,
            "ReturnToService": 2,
            "SlurmdParameters": "config_overrides",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        shape = f"Boards=1 SocketsPerBoard=1 CoresPerSocket={size.cpus} ThreadsPerCore=1 CPUs={size.cpus}"
        for node, port in zip(self.nodes, ports[1:], strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {shape}"
                f" RealMemory={size.memory_mb} Gres=gpu:{size.gpu_model}:{size.gpus}"
            )
        everywhere = f"Nodes={','.join(self.nodes)} DefMemPerCPU=500 State=UP"
        lines.append(f"PartitionName=gpu Default=YES MaxTime=1-00:00:00 {everywhere}")
        lines.append(f"PartitionName=short MaxTime=00:30:00 {everywhere}")
        return "\n".join(lines) + "\n"

    def _daemon(self, name: str, command: list[str]) -> None:
        with (self.folder / "log" / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, FOLDER: str(self.folder)},
                start_new_session=True,
                preexec_fn=_die_along,
            )

    def _kill(self, name: str, number: int = signal.SIGKILL) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _end(self) -> None:
        if "slurmctld" in self._daemons:
            with contextlib.suppress(AssertionError, subprocess.CalledProcessError):
                self.cancel_all()
        for name in reversed(list(self._daemons)):
            self._kill(name, signal.SIGTERM)
        for process in job_processes(self.name):
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.folder.name.startswith(FOLDER_PREFIX):
            if self._mounted:
                run_program("umount", "--lazy", str(ETC), check=False)
                self._mounted = False
            remove_links(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _unlock(self) -> None:
        while self._locks:
            self._locks.pop().close()


def locked(path: Path) -> Any:
    """Return a file that is locked until it is closed or this process ends; waits for who has it."""
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def own_mounts() -> bool:
    """Give this thread, and whatever it starts from now on, mounts that nobody else sees; returns whether it could."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


def require_no_other_slurm() -> None:
    """Raise UnavailableError where /etc/slurm has files of a Slurm that is not of these tests."""
    for name in CONFIGURATION:
        place = ETC / name
        ours = place.is_symlink() and place.readlink().parents[1].name.startswith(FOLDER_PREFIX)
        if (place.exists() or place.is_symlink()) and not ours:
            raise UnavailableError(f"{place} is not of these tests: this machine has a Slurm of its own, left alone")


def require_programs() -> None:
    """Install Slurm from Debian's packages where that may be done; raises UnavailableError with the reason if not."""
    if sys.platform != "linux":
        raise UnavailableError("Slurm's daemons run on Linux only")
    if os.geteuid() != 0:
        raise UnavailableError("starting Slurm's daemons needs root")
    if not (missing := [name for name in PROGRAMS if shutil.which(name) is None]):
        return
    wanted = os.environ.get("MEMGAP_INSTALL_SLURM", "0" if Path("/run/systemd/system").exists() else "1")
    if wanted != "1":
        raise UnavailableError(
            f"not installed: {', '.join(missing)}; with MEMGAP_INSTALL_SLURM=1 Debian's packages are installed"
        )
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"not installed: {', '.join(missing)}; and there is no apt-get to install them")
    with locked(INSTALL_LOCK):
        if any(shutil.which(name) is None for name in PROGRAMS):
            _install()


def _install() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise UnavailableError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def clear_leftovers() -> None:
    """End what clusters left behind whose starter was killed; those that live are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with (folder / ALIVE).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            for process in [*job_processes(_name_of(folder)), *_daemons_of(folder)]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            remove_links(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _daemons_of(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["name", "environ"]):
        environment = process.info["environ"] or {}
        if process.info["name"] in ("munged", "slurmctld", "slurmd") and environment.get(FOLDER) == str(folder):
            yield process


def remove_links(folder: Path) -> None:
    """Remove the links to a cluster's configuration."""
    for name in CONFIGURATION:
        if (ETC / name).is_symlink() and (ETC / name).readlink().parents[1] == folder:
            (ETC / name).unlink()


def _name_of(folder: Path) -> str:
    """Return the name of the cluster that a folder is of, or a name that no cluster has."""
    try:
        return (folder / "etc/slurm.conf").read_text().partition("ClusterName=")[2].split("\n")[0]
    except OSError:
        return "no cluster"


def job_processes(cluster: str, node: str | None = None) -> Iterator[psutil.Process]:
    """Yield the processes of a cluster's jobs and the slurmstepds above them, of one node or of all."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("SLURM_CLUSTER_NAME") != cluster:
                continue
            if node is not None and environment.get("SLURMD_NODENAME") != node:
                continue
            parent = process.parent()
            if parent is not None and parent.name() == "slurmstepd":
                yield parent
            yield process
        except psutil.Error:
            continue


def run_program(*command: str, check: bool = True) -> str:
    """Run one of Slurm's programs and return what it printed; raises CalledProcessError with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return done.stdout


def wait_for(condition: Callable[[], bool], otherwise: str, cluster: SlurmCluster | None = None) -> None:
    """Wait until something is so; in the last resort raise AssertionError, or UnavailableError at a start."""
    deadline = time.monotonic() + LAST_RESORT_S
    while not condition():
        if time.monotonic() > deadline:
            if cluster is None:
                raise AssertionError(otherwise)
            raise UnavailableError(f"{otherwise}: {_last_lines(cluster.folder / 'log')}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return so many ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def _last_lines(folder: Path) -> str:
    return " | ".join(
        f"{path.name}: {path.read_text(errors='replace').strip().splitlines()[-1:]}" for path in folder.iterdir()
    )


def _die_along() -> None:
    """Ask the kernel to end the daemon when the tests' process is gone, whatever ended that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(command: Sequence[str]) -> int:
    """Run a command while the cluster lives; returns its exit status, or 3 where there can be no cluster."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with SlurmCluster():
            return subprocess.run(command, check=False).returncode
    except UnavailableError as reason:
        print(f"no Slurm here: {reason}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
