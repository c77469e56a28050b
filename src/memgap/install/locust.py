"""Makes .venv-locust from its lock: Locust with gevent, apart from everything that memgap itself runs in."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from memgap.errors import UserError
from memgap.install.engine import locked_version
from memgap.kinds.locust.environment import LOCUST_FOLDER, NOTE
from memgap.shipped import LOCKS
from memgap.store.atomic import write_text


def install(folder: Path, lock: Path) -> None:
    """Install Locust into `folder` and note its version there.

    Raises UserError where pip cannot; a folder left half-done is made anew the next time.
    """
    if folder.exists():
        shutil.rmtree(folder)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=False).returncode:
        raise UserError(f"pip could not install {lock} (see its message above); mend that and run it again.")
    write_text(folder / NOTE, json.dumps({"package": "locust", "version": locked_version(lock, "locust")}) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and install."""
    parser = argparse.ArgumentParser(description=f"Install Locust into {LOCUST_FOLDER}.")
    parser.add_argument("--folder", type=Path, default=Path(LOCUST_FOLDER))
    parser.add_argument("--lock", type=Path, default=LOCKS / "locust.txt")
    options = parser.parse_args(argv)
    print(f"Installing Locust into {os.path.relpath(options.folder)} ...", flush=True)
    try:
        install(options.folder, options.lock)
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    return 0
