"""Prompts of text: questions and instructions written for this project, or the lines of a file of the user's.

They go to the server as they are, which cuts them into tokens by itself; so how long they are is what it counts.
"""

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from memgap.errors import UserError
from memgap.own_yaml import own_yaml


@functools.cache
def own_texts() -> tuple[tuple[str, ...], str]:
    """Return all prompts of this project's, and the beginning of their file's SHA-256."""
    content = resources.files("memgap.datasets").joinpath("texts.yaml").read_bytes()
    found = own_yaml(content.decode())
    asked = [one.format(subject) for one in found["templates"] for subject in found["subjects"]]
    asked += [one.format(passage) for one in found["tasks"] for passage in found["passages"]]
    return (*asked, *found["others"]), hashlib.sha256(content).hexdigest()[:12]


def check_own(requests: int, where: str) -> None:
    """Raise UserError where more prompts are asked for than the project has."""
    if requests > (held := len(own_texts()[0])):
        raise UserError(
            f"{where}: requests is {requests}, but there are {held} texts; lower it, or give a file of yours as path"
        )


def read_texts(spec: Mapping[str, Any], stream: np.random.RandomState) -> list[str]:
    """Return the `requests` prompts of `spec`, in the order of `stream`, none twice.

    Raises UserError where a file of the user's cannot be read or has fewer.
    """
    if spec["path"] is None:
        texts: list[str] = list(own_texts()[0])
    else:
        texts = _lines(Path(spec["path"]))
        if len(texts) < spec["requests"]:
            raise UserError(
                f"{spec['path']} has {len(texts)} prompts (lines with text, each counted once), but {spec['requests']} "
                "requests are asked for"
            )
    return [texts[place] for place in stream.permutation(len(texts))[: spec["requests"]]]


def _lines(path: Path) -> list[str]:
    """Return the lines with text of a file, without their ends, each once."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the prompts {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the prompts {path} are no text in UTF-8") from None
    return list(dict.fromkeys(one.strip() for one in content.split("\n") if one.strip()))
