"""Files that are either whole or absent: written beside the target, then renamed over it."""

import os
import tempfile
from pathlib import Path


def keep_others_from_writing() -> None:
    """From here on, let no new file of this process and its children be writable by everybody (umask)."""
    os.umask(os.umask(0o022) | 0o002)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that no reader ever sees a part of it; parent folders are made.

    Raises OSError where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())
