"""A small image for tests: this machine's Python and shell with memgap and what it needs, no package is fetched.

It is a real, closed image, but what is in it follows the machine: for trying the workflow and the cluster out, with the
simulated engine. Sessions run in it; figures and the advice do not (no seaborn, no pyarrow).
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from memgap.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = Path("opt/memgap")
ALSO = ("pandas", "uvloop", "orjson")
"""What sessions need or can use beyond memgap's own dependencies."""
UNUSED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages")
FOLDERS = ("bin", "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp")
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def make_rootfs(root: Path) -> None:
    """Fill the empty folder `root`; raises UserError where this machine lacks a part."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    python = Path(sys.executable).resolve()
    _copy(python, root)
    standard = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(standard, _inside(root, standard), ignore=_unused, dirs_exist_ok=True)
    site = root / PREFIX / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    shutil.copytree(PACKAGE, site / "memgap")
    for distribution in _needed():
        _copy_distribution(distribution, site)
    (root / PREFIX / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    (root / PREFIX / "bin").mkdir()
    (root / PREFIX / "bin/python").symlink_to(python)
    for shell in ("bash", "sh"):
        found = shutil.which(shell)
        if found is None:
            raise UserError(f"this machine has no {shell} to put into the image; install it.")
        target = root / "bin" / shell
        shutil.copy(Path(found).resolve(), target)
    _copy_libraries(root)


def _needed() -> Iterator[metadata.Distribution]:
    """Yield what memgap itself needs, each distribution once, as it is installed here."""
    names, seen = ["memgap", *ALSO], set()
    while names:
        name = re.split(r"[\s;<>=!~\[(]", names.pop(), maxsplit=1)[0]
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system or Python, or optional
        names += [one for one in distribution.requires or () if "extra ==" not in one]
        if name != "memgap":
            yield distribution


def _copy_distribution(distribution: metadata.Distribution, site: Path) -> None:
    for file in distribution.files or ():
        if ".." not in file.parts and "tests" not in file.parts:
            source = Path(str(distribution.locate_file(file)))
            target = site / file
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)  # with its time: compiled files are of a source of that time


def _copy_libraries(root: Path) -> None:
    """Copy the shared libraries that anything in `root` needs, to where they lie on this machine."""
    binaries = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
    wanted: set[str] = set()
    for start in range(0, len(binaries), 50):
        names = [str(path) for path in binaries[start : start + 50]]
        listed = subprocess.run(["ldd", *names], capture_output=True, text=True, check=False).stdout
        wanted.update(LIBRARY.findall(listed))
    for name in wanted:
        library = Path(name)
        if not library.is_relative_to(root):
            _copy(library, root)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _copy(path: Path, root: Path) -> None:
    """Copy a file, links followed, to the same place below `root`."""
    target = _inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _unused(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in UNUSED or name.startswith("config-3")}
