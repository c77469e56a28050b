"""Traces of torch.profiler that stay with a point, for Perfetto or chrome://tracing."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
"""So much of a point's traces is kept, compressed; a larger one is left out and the point says so."""


def kept_traces(traces: Mapping[str, Path]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return traces by the names that they are kept under (`<name>.json.gz`), and what a point says of them: their
    file names as `traces`, and `traces_left_out`, a sentence, where some are too large or cannot be read."""
    files: dict[str, bytes] = {}
    left_out = []
    for name, path in traces.items():
        try:
            data = path.read_bytes()
        except OSError as error:
            left_out.append(f"{path.name} cannot be read ({error.strerror})")
            continue
        packed = data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 6, mtime=0)
        if sum(map(len, files.values())) + len(packed) > MOST_BYTES:
            left_out.append(f"{path.name} of {len(packed) / 2**20:.0f} MiB is beyond the {MOST_BYTES / 2**20:.0f} MiB")
            continue
        files[f"{name}.json.gz"] = packed
    said = {"traces": list(files), **({"traces_left_out": "; ".join(left_out)} if left_out else {})}
    return files, said
