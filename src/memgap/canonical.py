"""Canonical JSON and content keys: equal content gives equal text, whatever the order of keys."""

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(obj: Any) -> str:
    """Return `obj` as compact JSON with sorted keys.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold.
    """
    return _ENCODER.encode(obj)


def content_key(obj: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of the canonical JSON of `obj`."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()[:length]
