"""Why a configuration has no number, and which of these are tried again."""

from collections.abc import Mapping
from typing import Any

CLASSES = ("oom", "timeout", "server_failure", "bad_config", "request_errors", "invalid")
_OF_STATUS: Mapping[str, str] = {
    "oom": "oom",
    "client_timeout": "timeout",
    "start_timeout": "timeout",
    "bad_config": "bad_config",
    "request_errors": "request_errors",
}


def failure_class(point: Mapping[str, Any]) -> str | None:
    """Return the class of `CLASSES` of a stored point, None where it is a measurement that can be believed."""
    if point["status"] == "ok":
        return "invalid" if point.get("verdict", {}).get("verdict") == "invalid" else None
    return _OF_STATUS.get(point["status"], "server_failure")


def failure_text(point: Mapping[str, Any]) -> str:
    """Return the class and what happened, in one line; for a failed point only."""
    if point["status"] == "ok":
        reasons = [one["text"] for one in point["verdict"]["reasons"] if one["severity"] == "invalid"]
        return f"invalid: {'; '.join(reasons)}"
    message = " ".join(str((point["error"] or {}).get("message", "")).split())
    return f"{failure_class(point)}: {message}"
