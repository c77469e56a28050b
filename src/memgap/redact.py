"""Secrets: what counts as one, and texts without them."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[redacted]"
NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|PASS|PASSWD|CREDENTIALS?|AUTHORIZATION)$|PASSWORD|^AWS_",
    re.IGNORECASE,
)
"""Names of variables and flags (with underscores) whose values are secrets."""
_LOWER_TOKEN = re.compile(r"(^|_)(hf|hub|huggingface|auth|access|api|bearer|refresh|session|secret)_?token$")
"""Names in lower case end in "token" for other reasons as well: `eos_token`."""
HARMLESS_NAMES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_DEFAULT_OUTPUT", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE")
LEAST_LENGTH = 6
"""A shorter value of a secret variable is not looked for in texts: it would be found everywhere."""

WORD = re.compile(r"[A-Za-z]?[a-z]{0,14}|[A-Z]{0,15}")
"""Such a value is not looked for either: in its place, what stands there would no longer be true, and would tell it."""
SAID = ("error", "profile")
"""Parts of a point that quote what servers and programs said; the others are memgap's own words and numbers."""

_SHAPES = re.compile(
    r"(?P<user>\b[a-zA-Z][a-zA-Z0-9+.-]{0,15}://)[^\s/?#\"'@]+(?P<at>@)"
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\b(?:ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bnvapi-[A-Za-z0-9_-]{16,}"
)
_BEARER = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z0-9_-]{3,64})(?P<sign>[\"']?\s{0,3}[=:]\s{0,3})"
    r"(?:(?P<mark>[\"'])(?P<quoted>[^\"'\n]*)(?P=mark)|(?P<plain>\[[^\]\n]*\]|[^\s\"',;)}\]]+))"
)


def secret_name(name: str) -> bool:
    """Whether a variable or flag of that name holds a secret: `HF_TOKEN`, `hf-token`, `AWS_...`, `MY_PASSWORD`."""
    plain = name.strip().lstrip("-").replace("-", "_")
    if plain.upper() in HARMLESS_NAMES or NAME.search(plain) is None:
        return False
    return not plain.endswith("token") or _LOWER_TOKEN.search(plain) is not None


def secret_shape(text: str) -> bool:
    """Whether a text holds what has the shape of a token, or an address with user and password in it."""
    return any(found["user"] is None or ":" in found[0][len(found["user"]) :] for found in _SHAPES.finditer(text))


def redact(text: str, values: Iterable[str] = (), environment: bool = True) -> str:
    """Return a text without secrets.

    Those are `values`, with `environment` the values of this process's environment variables with such names unless
    they are ordinary words, what stands behind such a name (`HF_TOKEN=...`, `"api_key": "..."`), and whatever has the
    shape of a token or of an address with a password.
    """
    for value in sorted({*values, *(_environment_values() if environment else ())}, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    text = _SHAPES.sub(lambda found: f"{found['user']}{REDACTED}@" if found["user"] else REDACTED, text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    return _ASSIGNED.sub(_without_value, text)


def redacted(content: Any, values: Iterable[str] = (), environment: bool = True) -> Any:
    """Return JSON-like content with every text in it redacted, those under a secret's name wholly; keys stay."""
    if isinstance(content, str):
        return redact(content, values, environment)
    if isinstance(content, Mapping):
        return {
            key: REDACTED
            if isinstance(one, str) and one and secret_name(str(key))
            else redacted(one, values, environment)
            for key, one in content.items()
        }
    if isinstance(content, list | tuple):
        return [redacted(one, values, environment) for one in content]
    return content


def redacted_point(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point without secrets, but for the record, which is its key and was refused if it had any.

    Values of the environment are looked for only in what others said: a password that is a model's name or a verdict
    would else take the truth out of the rest.
    """
    kept = {"record": point["record"]} if "record" in point else {}
    error = {"error": redacted_error(point["error"])} if isinstance(point.get("error"), Mapping) else {}
    rest = {
        name: redacted(part, environment=name in SAID) for name, part in point.items() if name not in (*kept, *error)
    }
    return {**rest, **kept, **error}


def redacted_error(error: Mapping[str, Any] | None, values: Iterable[str] = ()) -> Any:
    """Return an error without secrets in what was said; its kind is a word of memgap's own."""
    if error is None:
        return None
    return {name: one if name == "kind" else redacted(one, values) for name, one in error.items()}


def redacted_command(command: Iterable[str], values: Iterable[str] = ()) -> list[str]:
    """Return a command line without secrets, the value after a flag with a secret's name included.

    Values of the environment are not looked for: a command is made from the record and from paths.
    """
    found: list[str] = []
    hide = False
    for argument in command:
        found.append(REDACTED if hide else redact(argument, values, environment=False))
        hide = argument.startswith("--") and "=" not in argument and secret_name(argument)
    return found


def _environment_values() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= LEAST_LENGTH and secret_name(name) and WORD.fullmatch(value) is None
    ]


def _without_value(found: re.Match[str]) -> str:
    value = found["plain"] if found["mark"] is None else found["quoted"]
    if not secret_name(found["name"]) or not value or value in ("None", "null", "True", "False", REDACTED):
        return found[0]
    mark = found["mark"] or ""
    return f"{found['name']}{found['sign']}{mark}{REDACTED}{mark}"
