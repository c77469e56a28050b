"""Gets a real Apptainer from Debian's packages: `python -m tests.cluster.apptainer_setup` prints its version.

Debian has Apptainer in unstable only. Where the running Debian has it, apt installs it. Elsewhere the package of
unstable is unpacked, and its two programs get the C library of a newer Debian in a folder of their own: nothing that
dpkg knows of changes. Needs root and a Debian; whatever is missing comes back as the reason, for a skip that says it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .slurm_cluster import INSTALL_LOCK, locked

LIBRARIES = Path("/opt/memgap-apptainer/lib")
PROGRAMS = (Path("/usr/bin/apptainer"), Path("/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"))
SETTINGS = Path("/etc/apptainer/apptainer.conf")
HELPERS = ("patchelf", "squashfs-tools", "libseccomp2", "libsqlite3-0")
NEWER_DEBIAN = "trixie"
"""Whose C library the programs of unstable run with."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
OWN_LIBRARIES = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libresolv.so.2",
    "libnss_files.so.2",
    "libnss_dns.so.2",
)


class NotAvailableError(Exception):
    """Apptainer cannot be had here; the message says why."""


def version() -> str | None:
    """Return what `apptainer --version` prints, or None where it does not run."""
    try:
        done = subprocess.run(["apptainer", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def ensure() -> str:
    """Install Apptainer unless it runs already; returns its version. Raises NotAvailableError with the reason."""
    if found := version():
        return found
    if os.geteuid() != 0:
        raise NotAvailableError("apptainer is not installed, and only root can install it")
    if shutil.which("apt-get") is None or os.uname().machine != "x86_64":
        raise NotAvailableError("apptainer is not installed, and this is no Debian on x86-64 to install it on")
    with locked(INSTALL_LOCK):
        if not version():  # nobody else has installed it meanwhile
            _install()
    if found := version():
        return found
    raise NotAvailableError("Debian's apptainer was installed but does not run: `apptainer --version` fails")


def _install() -> None:
    if not _candidate("squashfs-tools"):  # a fresh machine without package lists
        _apt("update")
    if _candidate("apptainer"):
        _apt("install", "--no-install-recommends", "apptainer")
    else:
        _install_beside_an_older_debian()


def _install_beside_an_older_debian() -> None:
    """Unpack the package of unstable and give its programs a newer C library."""
    _apt("install", "--no-install-recommends", *HELPERS)
    with tempfile.TemporaryDirectory(prefix="memgap-apptainer-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt downloads as another user
        own_apt = _own_apt(folder)
        _apt("update", options=own_apt)
        for wanted in ("apptainer/sid", f"libc6/{NEWER_DEBIAN}"):
            _apt("download", wanted, options=own_apt, folder=folder)
        for package in ("apptainer", "libc6"):
            (archive,) = folder.glob(f"{package}_*.deb")
            _run("dpkg-deb", "--extract", str(archive), str(folder / package))
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        for library in OWN_LIBRARIES:
            shutil.copy(folder / "libc6/usr/lib/x86_64-linux-gnu" / library, LIBRARIES / library)
        for library in ("libseccomp.so.2", "libsqlite3.so.0"):
            shutil.copy(_found(library), LIBRARIES / library)
        _run("cp", "--archive", f"{folder / 'apptainer'}/.", "/")
    interpreter = LIBRARIES / OWN_LIBRARIES[0]
    for program in PROGRAMS:
        _run("patchelf", "--set-interpreter", str(interpreter), "--set-rpath", str(LIBRARIES), str(program))
    # Root of a virtual machine or of a container of its own often lacks a capability, and "full" then fails.
    text = SETTINGS.read_text(encoding="utf-8")
    SETTINGS.write_text(re.sub(r"(?m)^root default capabilities = .*$", "root default capabilities = no", text))


def _own_apt(folder: Path) -> list[str]:
    """Return apt options with which it sees unstable and the newer Debian, and touches nothing of the machine's own."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    mirror = _mirror()
    lines = [f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in ("sid", NEWER_DEBIAN)]
    (folder / "sources.list").write_text("".join(lines))
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    return [text for name, value in settings.items() for text in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """Return the Debian mirror that this machine uses."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    sites = [line for line in done.stdout.splitlines() if line.rstrip("/").endswith("debian")]
    if not sites:
        raise NotAvailableError("apptainer is not installed, and apt knows no Debian mirror to get it from")
    return sites[0]


def _candidate(package: str) -> bool:
    done = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False)
    return re.search(r"Candidate: (?!\(none\))\S", done.stdout) is not None


def _found(library: str) -> Path:
    for folder in ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"):
        if (path := Path(folder) / library).exists():
            return path
    raise NotAvailableError(f"apptainer needs {library}, which Debian's packages did not bring")


def _apt(action: str, *arguments: str, options: list[str] | None = None, folder: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(
        "apt-get",
        "-qq",
        "-y",
        "-o",
        "DPkg::Lock::Timeout=300",
        *(options or []),
        action,
        *arguments,
        folder=folder,
        environment=environment,
    )


def _run(*command: str, folder: Path | None = None, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        what = " ".join(command[:4])
        raise NotAvailableError(f"apptainer cannot be installed: `{what} ...` failed: {' '.join(last)}")


if __name__ == "__main__":
    try:
        print(ensure())
    except NotAvailableError as error:
        sys.exit(f"memgap tests: {error}")
