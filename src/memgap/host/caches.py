"""Where programs keep what they compile, on machines whose home cannot be written: containers, service accounts, nodes.

Engines and the compilers below them write under the home folder and end where they cannot. They get a folder of this
user's own below the one for temporary files instead; what is already there to read, such as models, stays where it is.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CACHES: Final = {
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "TRITON_HOME": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
}
"""A variable that moves such a folder, and the folder below the one of this user."""
HUB = "HF_HOME"


def with_caches(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with folders to write to, unchanged where the home can be written; what is set stays."""
    home = Path(environment.get("HOME") or "/nonexistent")
    if writable(home):
        return dict(environment)
    folder = own_folder()
    moved = {name: str(folder / below) for name, below in CACHES.items() if not environment.get(name)}
    hub = home / ".cache" / "huggingface"
    if not environment.get(HUB) and "XDG_CACHE_HOME" in moved and _is_folder(hub):
        moved[HUB] = str(hub)
    return {**environment, **moved}


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder; tried, since a file system that is read-only permits it in its modes."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".memgap-"):
            return True
    except OSError:
        return False


def own_folder() -> Path:
    """Return a folder for this user only; where somebody else has made the usual one, a new one."""
    folder = Path(tempfile.gettempdir()) / f"memgap-caches-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="memgap-caches-"))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
