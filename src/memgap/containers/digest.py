"""What identifies a container image: the digest of its content, never its name."""

import hashlib
import json
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from memgap.errors import UserError
from memgap.store.atomic import write_text

KNOWN = Path(".snakemake/memgap/image-digests.json")
"""Digests of local images by path, so that a dry run reads gigabytes once."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REMOTE = re.compile(r"(docker|oras)://[A-Za-z0-9][A-Za-z0-9._/:-]*@sha256:[0-9a-f]{64}")
SLOW_BYTES = 2**30
"""From this size on, reading an image is announced."""


def local_path(image: str) -> Path | None:
    """Return the path of a local image, or None for one in a registry."""
    parts = urlsplit(image)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in image else Path(image)


def image_digest(image: str, declared: str | None, where: str) -> str:
    """Return what stands for the image in a point's record.

    That of a local file is "sha256:" and the hash of its content; that of a registry is the address, digest included.
    `declared` is what the configuration says of a local file: it is believed where the file is missing, and checked
    where it is there. Raises UserError for a tag without a digest, a missing file, a folder, or another digest.
    """
    if declared is not None and DIGEST.fullmatch(declared) is None:
        raise UserError(f"{where}.image_digest: {declared!r} is no digest; it is `sha256:` and 64 hex digits.")
    path = local_path(image)
    if path is None:
        return _remote(image, declared, where)
    if not path.exists():
        if declared is not None:
            return declared
        raise UserError(
            f"{where}.image: {image} does not exist; build it with `python -m memgap.install.images build KIND`, or "
            f"give {where}.image_digest to read results without it."
        )
    if not path.is_file():
        raise UserError(f"{where}.image: {image} is a folder; pack it: `apptainer build IMAGE.sif {image}`.")
    found = file_digest(path)
    if declared not in (None, found):
        raise UserError(
            f"{where}.image_digest: {image} has the digest {found}, not {declared}; name the right image or digest."
        )
    return found


def file_digest(path: Path) -> str:
    """Return "sha256:" and the hash of a file's content, kept by path, size and times for the next call.

    Raises UserError where the file cannot be read.
    """
    try:
        facts = path.stat()
        stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
        known = _known()
        entry = known.get(str(path.absolute()))
        if isinstance(entry, dict) and entry.get("stamp") == stamp and isinstance(entry.get("digest"), str):
            return str(entry["digest"])
        if facts.st_size >= SLOW_BYTES:
            print(f"memgap: reading {path} ({facts.st_size / 1e9:.1f} GB) once for its digest ...", file=sys.stderr)
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    _keep({**known, str(path.absolute()): {"stamp": stamp, "digest": digest}})
    return digest


def pin_images(engines: MutableMapping[str, Any]) -> None:
    """Fill `image_digest` of every engine that runs in a local image, so that jobs need not see the file.

    Raises UserError; see `image_digest`.
    """
    for name, settings in engines.items():
        image = settings["image"]
        if image is not None:
            digest = image_digest(image, settings["image_digest"], f"config: engines.{name}")
            settings["image_digest"] = digest if local_path(image) is not None else None


def _remote(image: str, declared: str | None, where: str) -> str:
    if REMOTE.fullmatch(image) is None:
        base = image.partition("@")[0]
        raise UserError(
            f"{where}.image: {image} names no digest, so what it holds may change; write docker://NAME@sha256:... "
            f"(`docker buildx imagetools inspect` shows it), or pull it into a file: `apptainer pull image.sif {base}`."
        )
    if declared is not None:
        raise UserError(f"{where}.image_digest is for a local file; {image} has its digest in the address, remove it.")
    return image


def _known() -> dict[str, Any]:
    try:
        read = json.loads(KNOWN.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _keep(known: dict[str, Any]) -> None:
    try:
        write_text(KNOWN, json.dumps(known, indent=1) + "\n")
    except OSError:
        return  # a folder that cannot be written: the next call reads the image again
