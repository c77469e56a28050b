"""The store: results/points/<key>/, one folder a measured point, complete or absent."""

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import content_key
from memgap.errors import DAMAGE, UserError
from memgap.redact import redacted_point
from memgap.store.atomic import write_text

SPARED = "not_needed"
"""What a table says of a point that its sweep's stop rules spared; the store has none of that status."""
POINT_FILE = "point.json"
SCHEMA = 1


class PointStore:
    """Stored points below one folder. A point's folder appears by one rename, so a reader sees all of it or nothing.

    `may_write` is called with a point's key right before it is stored, and raises where it must not be.
    """

    def __init__(self, folder: Path, may_write: Callable[[str], None] = lambda key: None) -> None:
        self.folder = folder
        self._may_write = may_write

    def require_writable(self) -> None:
        """Raises UserError where nothing can be written below the store."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".probe"):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write below {self.folder}: {error.strerror}; "
                "make the folder writable or run memgap elsewhere (--directory)."
            ) from error

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a point's point.json, or None where it is absent.

        Raises UserError where the file is garbled or belongs to another record.
        """
        path = self.folder / key / POINT_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); delete {path.parent} to measure the point again."
            ) from error
        try:
            point = json.loads(text)
            fits = point["key"] == key and point["schema"] == SCHEMA and content_key(point["record"]) == key
            fits = fits and isinstance(point["status"], str) and _has_shape(point)
        except DAMAGE:
            fits = False
        if not fits:
            raise UserError(f"{path}: not a whole point of this key; delete {path.parent} to measure the point again.")
        checked: dict[str, Any] = point
        return checked

    def status(self, key: str) -> str:
        """Return a point's status, "missing" where it is absent, "garbled" where it cannot be read."""
        try:
            point = self.read(key)
        except UserError:
            return "garbled"
        return str(point["status"]) if point else "missing"

    def digest(self, key: str) -> str | None:
        """Return what tells a stored point's point.json from any other, None where it is absent.

        Snakemake takes a small file whose content is as before for unchanged, so that a session's outcome, which stands
        for its points, has to say that one was measured or restored anew.
        """
        try:
            return hashlib.sha256((self.folder / key / POINT_FILE).read_bytes()).hexdigest()[:16]
        except OSError:
            return None

    def write(self, key: str, point: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Store a point and its further files, in place of what was there.

        What a server or an environment said is redacted, all but the record, whose hash is the key: a configuration
        with a secret is refused before. Raises OSError where the disk refuses; nothing half-written stays visible.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{key}."))
        try:
            for name, data in files.items():
                (staged / name).write_bytes(data)
                (staged / name).chmod(0o644)
            write_text(
                staged / POINT_FILE, json.dumps(redacted_point(point), indent=1, sort_keys=True, allow_nan=False) + "\n"
            )
            staged.chmod(0o755)
            self._may_write(key)
            target = self.folder / key
            if target.exists():
                old = self.folder / f".{key}.old.{os.getpid()}"
                os.replace(target, old)
                os.replace(staged, target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(staged, target)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def stored_keys(self) -> Iterator[str]:
        """Yield the keys of all stored points, sorted."""
        if self.folder.is_dir():
            yield from sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))


def _has_shape(point: Mapping[str, Any]) -> bool:
    """Whether the parts of a point are what those who read it take them for; the summary's values are numbers."""
    parts = [point.get(name, {}) for name in ("summary", "engine", "hardware", "provenance")]
    numbers = parts[0].values() if isinstance(parts[0], dict) else ()
    return (
        all(isinstance(one, dict) for one in parts)
        and all(isinstance(one, int | float) for one in numbers)
        and isinstance(point.get("error"), dict | None)
        and isinstance(point.get("flags", []), list)
    )


def csv_gz(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return rows as gzipped CSV without a time stamp in it; absent and None cells are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _cell(row.get(column)) for column in columns})
    return gzip.compress(text.getvalue().encode(), mtime=0)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value
