"""Builds the container images: `python -m memgap.install.images build engine-cpu`. See docs/containers.md."""

import argparse
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from memgap.containers.digest import file_digest
from memgap.engine.identity import NOTE
from memgap.errors import UserError
from memgap.install.image_lock import ImageLock, read_lock
from memgap.install.mock_image import make_rootfs
from memgap.session.provenance import git_commit

PARENTS = {
    "base": None,
    "analysis": "base",
    "engine-cpu": "analysis",
    "engine-cuda": "analysis",
    "engine-cuda-profilers": "engine-cuda",
}
MOCK = "mock"
DEBOOTSTRAP = "base-debootstrap.def"
WHEELS_OF = {
    "analysis": ("workflow",),
    "engine-cpu": ("engine-cpu", "engine-cpu-torch"),
    "engine-cuda": ("engine-cuda",),
}
QUICK = ("--mksquashfs-args", "-comp gzip -Xcompression-level 1")
"""Packs several times faster than by default, into a file that is some percent larger; every kernel reads it."""
WHEELS_INSIDE = "/mnt"
ALL_CAPABILITIES = Path("/proc/sys/kernel/cap_last_cap")


@dataclass(frozen=True)
class Settings:
    """How images are built: `bootstrap` is docker or debootstrap; Debian's `mirror`; `wheels` are fetched into it."""

    envs: Path
    bootstrap: str = "docker"
    mirror: str | None = None
    wheels: Path | None = None


def chain(kind: str) -> list[str]:
    """Return the images that `kind` is built from, the first one first, itself last."""
    parent = PARENTS[kind]
    return [*(chain(parent) if parent else []), kind]


def build_arguments(kind: str, lock: ImageLock, settings: Settings, parent: Path | None) -> dict[str, str]:
    """Return the values of a definition file's variables; raises UserError where the lock lacks one."""
    if kind == "base":
        if settings.bootstrap == "docker":
            return {"base": lock.base()}
        addresses = lock.debian(settings.mirror)
        return {"release": addresses["release"], "debian": addresses["debian"]}
    values = {"from": str(parent), "commit": git_commit() or "unknown"}
    if kind == "analysis":
        values |= lock.debian(settings.mirror)
    if kind == "engine-cuda-profilers":
        values |= lock.profilers()
    return values


def definition(kind: str, settings: Settings) -> Path:
    """Return the definition file of an image."""
    own = kind == "base" and settings.bootstrap == "debootstrap"
    return settings.envs / "images" / (DEBOOTSTRAP if own else f"{kind}.def")


def build(kinds: Sequence[str], out: Path, settings: Settings) -> list[Path]:
    """Build images into the folder `out`, each as KIND.sif; returns their paths.

    What they share is built once. Raises UserError for an empty value in the lock, before anything is built, and
    where a step fails.
    """
    stages = list(dict.fromkeys(one for kind in kinds if kind != MOCK for one in chain(kind)))
    lock = read_lock(settings.envs)
    for stage in stages:
        build_arguments(stage, lock, settings, Path("unbuilt"))
    _require_apptainer()
    out = out.resolve()  # steps run in folders of their own
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".stages-", dir=out)))
        for stage in stages:
            parent = PARENTS[stage]
            folder = _stage(stage, lock, settings, work / parent if parent else None, work)
            if stage in kinds:
                made.append(_pack(folder, out / f"{stage}.sif"))
        if MOCK in kinds:
            made.append(_mock(out / f"{MOCK}.sif", work))
    return made


def _stage(kind: str, lock: ImageLock, settings: Settings, parent: Path | None, work: Path) -> Path:
    """Build one image as a folder: a file of each would be packed only to be unpacked for the next one."""
    folder = work / kind
    values = build_arguments(kind, lock, settings, parent)
    command = ["apptainer", "build", "--sandbox"]
    if _needs_fakeroot():
        # debootstrap makes device nodes, which no user namespace may; all that its image runs in a build is %test
        command.append("--fakeroot" if definition(kind, settings).name != DEBOOTSTRAP else "--notest")
    if settings.wheels is not None and kind in WHEELS_OF:
        fetch_wheels(kind, settings)
        command += ["--bind", f"{(settings.wheels / kind).absolute()}:{WHEELS_INSIDE}"]
    for name, value in values.items():
        command += ["--build-arg", f"{name}={value}"]
    print(f"memgap: building {kind} ...", flush=True)
    _run([*command, str(folder), str(definition(kind, settings).absolute())], settings.envs.parent)
    for device in (folder / "dev").rglob("*") if (folder / "dev").is_dir() else ():
        if stat.S_ISCHR(device.lstat().st_mode) or stat.S_ISBLK(device.lstat().st_mode):
            device.unlink()  # apptainer makes its own, and who is not root cannot copy these
    return folder


def _pack(folder: Path, image: Path) -> Path:
    _run(["apptainer", "build", "--force", *QUICK, str(image), str(folder)], folder.parent)
    return image


def _mock(image: Path, work: Path) -> Path:
    root = work / MOCK
    root.mkdir()
    make_rootfs(root)
    text = (
        f"Bootstrap: localimage\nFrom: {root}\n\n%environment\n    export PATH=/opt/memgap/bin:/usr/bin:/bin\n"
        "    export PYTHONNOUSERSITE=1 PYTHONPATH= PYTHONHOME= VIRTUAL_ENV= MEMGAP_ENGINE_PYTHON=\n"
        f"    export MEMGAP_GIT_COMMIT={git_commit() or 'unknown'}\n"
    )
    recipe = work / f"{MOCK}.def"
    recipe.write_text(text)
    _run(["apptainer", "build", "--force", *QUICK, str(image), str(recipe)], work)
    return image


def fetch_wheels(kind: str, settings: Settings) -> None:
    """Fetch an image's locked packages with this machine's pip and its settings (proxy, mirror, certificates), once."""
    assert settings.wheels is not None
    folder = settings.wheels / kind
    locks = [settings.envs / f"{name}.txt" for name in WHEELS_OF[kind]]
    fetched, wanted = folder / ".fetched", "".join(f"{file_digest(lock)}\n" for lock in locks)
    if fetched.exists() and fetched.read_text(encoding="utf-8") == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for lock in locks:
        hashes = ["--require-hashes"] if "--hash=" in lock.read_text(encoding="utf-8") else []
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        _run([*command, "--find-links", str(folder), *hashes, "-r", str(lock)], settings.envs.parent)
    fetched.write_text(wanted, encoding="utf-8")


def docker_command(kind: str, lock: ImageLock, settings: Settings) -> list[str]:
    """Return the command that builds the same image with Docker, from envs/Dockerfile."""
    command = ["docker", "build", "--file", str(settings.envs / "Dockerfile"), "--target", kind]
    values = {"BASE": lock.base(), "COMMIT": git_commit() or "unknown"}
    values |= {name.upper(): value for name, value in lock.debian(settings.mirror).items()}
    if kind == "engine-cuda-profilers":
        values |= {name.upper(): value for name, value in lock.profilers().items()}
    for name, value in values.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, "--tag", f"memgap:{kind}", str(settings.envs.parent)]


def check_engine(folder: Path) -> str:
    """Return package and version of the engine in `folder`; raises UserError where it is not the one that was noted."""
    try:
        note: Mapping[str, str] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no engine is installed there, {NOTE} is missing or broken.") from error
    say = "import importlib.metadata, sys, vllm; print(importlib.metadata.version(sys.argv[1]))"
    found = subprocess.run(
        [str(folder / "bin" / "python"), "-c", say, note["package"]], capture_output=True, text=True, check=False
    )
    if found.returncode or found.stdout.split()[-1:] != [note["version"]]:
        last = (found.stderr.strip() or found.stdout.strip()).splitlines()[-1:]
        raise UserError(f"{folder}: {note['package']} {note['version']} does not start: {' '.join(last)}")
    return f"{note['package']} {note['version']}"


def _needs_fakeroot() -> bool:
    """Whether steps inside an image need a user namespace: not root, or a root that lacks a capability."""
    if os.geteuid() != 0:
        return True
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    lacking = held != (1 << (int(ALL_CAPABILITIES.read_text()) + 1)) - 1
    if lacking and not any(line.startswith("root:") for line in Path("/etc/subuid").read_text().splitlines()):
        raise UserError(
            "root lacks a capability here, so images need `--fakeroot`, for which /etc/subuid and /etc/subgid have no "
            "line for root; add `root:1000000:65536` to both."
        )
    return lacking


def _require_apptainer() -> None:
    if shutil.which("apptainer") is None:
        raise UserError(
            "apptainer is not on the PATH; load or install it, or build with Docker (`images docker KIND`)."
        )


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-20:]), file=sys.stderr)
        raise UserError(f"`{shlex.join(command[:3])} ...` failed; its last lines are above.")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; returns 0, or 2 after one sentence."""
    parser = argparse.ArgumentParser(prog="python -m memgap.install.images", description="Build the container images.")
    parser.add_argument("--envs", type=Path, default=Path("envs"), help="folder with the locks")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build", help="build images with apptainer")
    one.add_argument("kinds", nargs="+", choices=[*PARENTS, MOCK], metavar="KIND", help=", ".join([*PARENTS, MOCK]))
    one.add_argument("--out", type=Path, default=Path("images"))
    one.add_argument("--bootstrap", choices=["docker", "debootstrap"], default="docker")
    one.add_argument("--wheels", type=Path, help="fetch wheels into this folder with this machine's pip first")
    other = commands.add_parser("docker", help="print the command that builds an image with Docker")
    other.add_argument("kind", choices=list(PARENTS))
    for sub in (one, other):
        sub.add_argument("--mirror", help="Debian mirror in place of the dated archive, http://deb.debian.org say")
    check = commands.add_parser("check", help="check the engine inside an image")
    check.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.command == "check":
            print(check_engine(options.folder))
        elif options.command == "docker":
            settings = Settings(options.envs, mirror=options.mirror)
            print(shlex.join(docker_command(options.kind, read_lock(options.envs), settings)))
        else:
            settings = Settings(options.envs, options.bootstrap, options.mirror, options.wheels)
            for image in build(options.kinds, options.out, settings):
                print(f"{image}: {image.stat().st_size / 1e6:.0f} MB, {file_digest(image)}")
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
