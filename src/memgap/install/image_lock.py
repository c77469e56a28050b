"""envs/images.yaml: what the container images are made of beside the packages' locks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgap.config.reading import read_yaml
from memgap.errors import UserError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageLock:
    """The content of the lock file `path`; values are checked where they are asked for, so that an empty one stops only
    the builds that need it.
    """

    path: Path
    content: Mapping[str, Any]

    def value(self, section: str, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return one value; raises UserError where it is empty or not of the form of `pattern`."""
        part = self.content.get(section)
        found = part.get(name) if isinstance(part, Mapping) else None
        text = "" if found is None else str(found)
        if not text or (pattern is not None and pattern.fullmatch(text) is None):
            what = "is empty" if not text else f"is {text!r}"
            form = f", in the form {pattern.pattern}" if pattern is not None else ""
            raise UserError(f"{self.path}: {section}.{name} {what}; put the verified value there{form}.")
        return text

    def base(self) -> str:
        """Return the base image with its digest, without a tag."""
        return f"{self.value('base', 'image')}@{self.value('base', 'digest', DIGEST)}"

    def debian(self, mirror: str | None = None) -> dict[str, str]:
        """Return the addresses of Debian's packages and security updates, and the release.

        `mirror` (http://deb.debian.org, say) replaces the dated archive, whose versions are then no longer fixed.
        """
        archive, date = self.value("debian", "archive"), self.value("debian", "date", re.compile(r"\d{8}T\d{6}Z"))
        places = {"debian": "debian", "security": "debian-security"}
        addresses = {name: f"{archive}/{place}/{date}" for name, place in places.items()}
        if mirror is not None:
            addresses = {name: f"{mirror.rstrip('/')}/{place}" for name, place in places.items()}
        return {**addresses, "release": self.value("debian", "release")}

    def profilers(self) -> dict[str, str]:
        """Return what the step `profilers` takes, its packages as "NAME=VERSION NAME=VERSION"."""
        packages = (self.content.get("profilers") or {}).get("packages") or {}
        if not packages or not all(packages.values()):
            raise UserError(f"{self.path}: profilers.packages needs a version for each package.")
        return {
            "repository": self.value("profilers", "repository"),
            "keyring": self.value("profilers", "keyring"),
            "keyring_sha256": self.value("profilers", "keyring_sha256", SHA256),
            "packages": " ".join(f"{name}={version}" for name, version in packages.items()),
        }


def read_lock(envs: Path) -> ImageLock:
    """Read images.yaml of the folder `envs`; raises UserError where it is missing or no mapping."""
    path = envs / "images.yaml"
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; images are built in a checkout of the project.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no YAML; restore it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no mapping; restore it.")
    return ImageLock(path, content)
