"""Where Locust is installed: an environment of its own, since gevent changes a whole process."""

import json
import os
from pathlib import Path

from memgap.errors import UserError
from memgap.shipped import LOCKS, ROOT

LOCUST_FOLDER = ".venv-locust"
NOTE = "memgap-locust.json"
"""Written into the folder by the installer: {"package", "version"}."""
LOCUST_VERSION = "2.47.0"
"""The locked version. It is part of every Locust point's record, which has to be known before anything is installed."""
HOW_TO = "run `make install-locust` (or `python workflow/scripts/install_locust.py`)"


def installed_note() -> Path | None:
    """Return the installer's note: in the working directory, else in the checkout that this package runs from."""
    for root in (Path.cwd(), ROOT):
        if (root / LOCUST_FOLDER / NOTE).exists():
            return root / LOCUST_FOLDER / NOTE
    return None


def locust_files() -> tuple[str, str]:
    """Return where the workflow makes Locust's environment, as the path of its note, and the lock it is made from."""
    return f"{LOCUST_FOLDER}/{NOTE}", os.path.relpath(LOCKS / "locust.txt")


def locust_python() -> str:
    """Return the interpreter that has Locust; the variable MEMGAP_LOCUST_PYTHON names another one.

    Raises UserError where Locust is not installed, or in another version than the points' records say, and where the
    environment holds settings of Locust's, which would change the load.
    """
    own = sorted(name for name in os.environ if name.startswith("LOCUST_"))
    if own:
        raise UserError(f"the variable {own[0]} would change what Locust does; unset it.")
    declared = os.environ.get("MEMGAP_LOCUST_PYTHON")
    if declared:
        return declared
    note = installed_note()
    if note is None:
        raise UserError(f"Locust is not installed in {LOCUST_FOLDER}; {HOW_TO}.")
    try:
        version = str(json.loads(note.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{note} cannot be read; {HOW_TO} again.") from error
    if version != LOCUST_VERSION:
        raise UserError(f"{note.parent} has Locust {version}, but the points are of {LOCUST_VERSION}; {HOW_TO} again.")
    return str(note.parent / "bin" / "python")
