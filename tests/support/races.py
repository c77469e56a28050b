"""Servers of a race that measure nothing: they store points whose speed follows from their flags."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.canonical import content_key
from memgap.points.point import Point, Record
from tests.support.records import store_point

VALID = {"verdict": "valid", "limit": "engine", "reasons": []}
DOUBTFUL = {
    "verdict": "invalid",
    "limit": "client",
    "reasons": [{"check": "loop_lag", "severity": "invalid", "value": 99, "bound": 50, "text": "the client was late"}],
}


class MadeServers:
    """Stands in for `memgap.tuning.servers.Servers`; `measured` are the keys in order, `closed` whether it was left."""

    def __init__(self, *arguments: Any) -> None:
        self.results: Path = arguments[2]
        self.measured: list[str] = []
        self.labels: list[str] = []
        MadeServers.last = self

    last: "MadeServers"

    def __enter__(self) -> "MadeServers":
        return self

    def __exit__(self, *what: object) -> None:
        return None

    def prepare(self, points: Sequence[Point]) -> None:
        """Start nothing."""

    def keep_only(self, sessions: Iterable[str]) -> None:
        """Stop nothing."""

    def measure(self, named: Sequence[tuple[Point, str]]) -> None:
        """Store what the flags stand for: `fails` a status, `doubt` an invalid point, `speed` in output tok/s."""
        for point, label in named:
            again = point.key in self.measured
            self.measured.append(point.key)
            self.labels.append(label)
            args = point.record["server"]["args"]
            if (status := args.get("fails")) is not None and not (again and args.get("mends")):
                store_point(self.results / "points", point.record, {}, status)
                continue
            doubted = args.get("doubt") and not (again and args.get("mends"))
            store_point(
                self.results / "points",
                point.record,
                summary(point.record),
                verdict=DOUBTFUL if doubted else VALID,
                window={"start_unix_s": float(len(self.measured)), "end_unix_s": len(self.measured) + 0.5},
            )


def summary(record: Record) -> dict[str, float]:
    """Return the numbers of a point: its speed with half a percent of noise that follows from its key."""
    args: Mapping[str, Any] = record["server"]["args"]
    rng = np.random.default_rng(int(content_key(record), 16))
    tok_s = float(args.get("speed", 1000.0)) * float(np.exp(rng.normal(0.0, float(args.get("noise", 0.005)))))
    output, prompt = 1600.0, 400.0
    return {
        "duration_s": output / tok_s,
        "requests_completed": 8.0,
        "requests_failed": 0.0,
        "output_tokens": output,
        "prompt_tokens": prompt,
        "output_throughput_tok_s": tok_s,
        "total_throughput_tok_s": 1.25 * tok_s,
        "tpot_mean_ms": 4000.0 / tok_s,
        "ttft_mean_ms": 20.0,
        "e2e_mean_ms": 500.0,
        "energy_j": 700.0 * output / tok_s,
        "energy_per_output_token_j": 700.0 / tok_s,
        "gpu_power_mean_w": 700.0,
    }


def made_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let races run on made servers, and take every flag as known."""
    monkeypatch.setattr("memgap.tuning.contest.Servers", MadeServers)
    monkeypatch.setattr("memgap.tuning.contest.engine_flags", lambda *_: None)
