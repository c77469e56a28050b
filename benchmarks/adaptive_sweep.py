"""How many points, and how much GPU time, the search for B_opt needs against the full grid, on recorded data.

`python benchmarks/adaptive_sweep.py [recorded/h200]` replays the search on the recorded first repeats of each model's
caps: what it would have measured, in which order, how long those runs took, and whether the answer is the full grid's.
"""

import sys
from pathlib import Path
from typing import Any

from memgap.advisor.bca import advise
from memgap.advisor.search import SEARCHES, Summaries, profile_of
from memgap.kinds.registry import kind_of
from memgap.recorded.files import all_points
from memgap.session.stop import Seen
from memgap.stats.averaging import chosen

ADVISOR: dict[str, Any] = {"latency": "itl_mean_ms", "slo": {"multiple": 2.0, "times_latency_at": 32}, "epsilon": 0.1}


def grids(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return for each model its recorded points of one server and the chat workload by cap, first repeats."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for point in all_points(folder):
        record = point["record"]
        alone = record["server"].get("replicas") == 1 and "profile" not in record["server"]
        four = record["server"]["args"].get("api-server-count") == 4 and "enable-chunked-prefill" not in str(record)
        if alone and four and record["dataset"]["name"] == "chat" and record["repeat"] == 0:
            caps = found.setdefault(record["model"]["name"], {})
            kept = caps.get(record["batch_cap"])
            if kept is None or record["load"]["requests"] < kept["record"]["load"]["requests"]:
                caps[record["batch_cap"]] = point
    return found


def answer(known: dict[int, Summaries], slo: dict[str, Any]) -> int | None:
    """Return B_opt of the known caps."""
    profile = [profile_of(cap, known[cap], ADVISOR["latency"]) for cap in sorted(known)]
    return advise(profile, slo, ADVISOR["epsilon"]).b_opt


def main() -> None:
    """Print a table."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "recorded/h200"
    print("| model | SLO | search | points: search, grid | GPU seconds: search, grid | B_opt: search, grid | order |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model, points in grids(folder).items():
        caps = sorted(points)
        seconds = {cap: points[cap]["window"]["duration_s"] for cap in caps}
        grid: dict[int, Summaries] = {}
        for cap in caps:
            seen = Seen.of(kind_of(points[cap]["record"]).restored(points[cap]))
            grid[cap] = [chosen(seen.summary)] if seen.good else []
        for multiple in (2.0, 4.0):
            slo = {"multiple": multiple, "times_latency_at": 32}
            for name, search in SEARCHES.items():
                known: dict[int, Summaries] = {}
                order: list[int] = []
                while True:
                    summaries = {cap: points[cap]["summary"] if known.get(cap) else {} for cap in caps}
                    evidence = {cap: [(points[cap]["key"], points[cap]["record"], summaries[cap])] for cap in caps}
                    wanted = search(caps, known, {**ADVISOR, "slo": slo}, evidence)
                    if wanted is None:
                        break
                    known[wanted] = grid[wanted]
                    order.append(wanted)
                spent, whole = sum(seconds[cap] for cap in order), sum(seconds.values())
                print(
                    f"| {model} | {multiple:g} x ITL(32) | {name} | {len(order)}, {len(caps)} | {spent:.0f}, "
                    f"{whole:.0f} ({spent / whole:.0%}) | {answer(known, slo)}, {answer(grid, slo)} | "
                    f"{', '.join(map(str, order))} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
