"""Published measurements and decisions that rules are tried on (tests/unit/data/paper_fig10.csv says whose)."""

import csv
from pathlib import Path

from memgap.advisor.bca import Profile

TABLE = Path(__file__).resolve().parents[1] / "unit/data/paper_fig10.csv"
MULTIPLES = (2, 3, 4, 5)
"""Bounds on the time between tokens, as multiples of that at a cap of 32."""
B_OPT = {
    ("opt-1.3b", 0.1): (96, 128, 256, 256),
    ("opt-1.3b", 0.2): (96, 96, 96, 96),
    ("opt-2.7b", 0.1): (96, 128, 256, 256),
    ("opt-2.7b", 0.2): (96, 128, 128, 128),
    ("llama-2-7b", 0.1): (96, 192, 192, 192),
    ("llama-2-7b", 0.2): (96, 192, 192, 192),
    ("llama-2-13b", 0.1): (80, 80, 80, 80),
    ("llama-2-13b", 0.2): (80, 80, 80, 80),
}
"""The published rule's answer by model and epsilon, for each of MULTIPLES; preempted caps are no candidates."""


def profiles() -> dict[str, list[Profile]]:
    """Return what was measured of each model: tok/s and the mean time between tokens in ms, by cap."""
    found: dict[str, list[Profile]] = {}
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        reason = "preempted" if row["preempted"] == "yes" else ""
        profile = Profile(int(row["batch_cap"]), float(row["tok_s"]), float(row["itl_ms"]), reason)
        found.setdefault(row["model"], []).append(profile)
    return found
