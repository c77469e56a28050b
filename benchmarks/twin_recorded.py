"""The twin on the recorded online points: five points a model calibrate it, the others are predicted.

    .venv/bin/python benchmarks/twin_recorded.py [--out FILE.csv]

Prints errors and coverage of the 90 % intervals for caps of the same workload that were not calibrated on ("untried
caps"), for workloads that were not seen ("other lengths") and for points that preempted, which calibration never saw.
By the same calibration, of recorded/h200, other servers of which no point is known: the open loops and the nine
combinations of lengths of recorded/h200-load, and recorded/h200-tuning with its other flags (step budget, sequence
limit, KV pool); their intervals are those for another machine. Points of several replicas are not simulated.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import UserError
from memgap.recorded.files import all_points
from memgap.twin.calibrate import calibrate, choose, transferred
from memgap.twin.costs import FEATURES, Coefficients
from memgap.twin.predict import predict
from memgap.twin.question import Question, asked
from memgap.twin.report import HELD_OUT, rows
from memgap.twin.simulate import Frontend, simulate
from memgap.twin.stored import Observation, observation

RECORDED = Path(__file__).resolve().parents[1] / "recorded"
QUANTITIES = (
    *("output_throughput_tok_s", "itl_mean_ms", "itl_median_ms", "itl_p90_ms", "itl_p99_ms"),
    *("ttft_mean_ms", "ttft_median_ms", "ttft_p99_ms", "tpot_mean_ms", "e2e_mean_ms", "e2e_p99_ms"),
    *("kv_cache_usage_max_fraction", "energy_per_output_token_j"),
)


def observations(study: str) -> list[Observation]:
    """Return what the twin can simulate of a recorded study."""
    found = []
    for point in all_points(RECORDED / study):
        if point["status"] == "ok" and "profile" not in point["record"].get("server", {}):
            try:
                found.append(observation(point))
            except UserError:
                continue
    return found


def kind(row: "pd.Series[Any]", calibrated_on: str) -> str:
    """Return which of the classes a row belongs to."""
    if row["study"] == "h200-load":
        return "open loops, later" if row["load"] == "open" else "nine lengths, later"
    if row["study"] == "h200-tuning":
        return "other servers"
    if row["preempted"]:
        return "preempted"
    return "untried caps" if row["workload"] == calibrated_on else "other lengths"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tables = []
    points = observations("h200")
    others = {study: observations(study) for study in ("h200-load", "h200-tuning")}
    for model in dict.fromkeys(one.model for one in points):
        own = [one for one in points if one.model == model]
        chosen = choose(own)
        began_s = time.monotonic()
        calibration = calibrate(chosen)
        spent_s = time.monotonic() - began_s
        print(f"{model}: caps {[one.batch_cap for one in chosen]}, {spent_s:.1f} s")
        of_model = {study: [one for one in found if one.model == model] for study, found in others.items()}
        for study, of_study in {"h200": own, **of_model}.items():
            if of_study:
                known = calibration if study == "h200" else transferred(calibration)
                table = pd.DataFrame(rows(known, of_study)).assign(study=study)
                pre = {one.key: one.summary.get("preemptions", 0) > 0 for one in of_study}
                table["preempted"] = table["key"].map(pre)
                tables.append(table.assign(calibrated_on=chosen[0].workload))
    data = pd.concat(tables, ignore_index=True)
    data["class"] = [kind(row, row["calibrated_on"]) for _, row in data.iterrows()]
    if options.out:
        data.to_csv(options.out, index=False, float_format="%.6g")
    held = data[(data["role"] == HELD_OUT) & data["quantity"].isin(QUANTITIES) & data["error_fraction"].notna()]
    for by in (["class", "quantity"], ["class", "model", "quantity"]):
        grouped = held.assign(error=held["error_fraction"].abs()).groupby(by, sort=False)
        summary = grouped.agg(
            points=("error", "size"),
            median=("error", "median"),
            p90=("error", lambda one: one.quantile(0.9)),
            greatest=("error", "max"),
            inside=("inside", "mean"),
        )
        print(summary.round(3).to_string())
    speed(points)


def speed(points: list[Observation]) -> None:
    """Print what simulations take: 1,000 requests at two caps, and a hundred answers with intervals."""
    calibration = calibrate(choose([one for one in points if one.model == "opt-1.3b"]))
    like = calibration.points[-1]
    steps = calibration.values
    costs = Coefficients(tuple(steps[name] for name in FEATURES))
    for cap in (8, 96, 512):
        load = asked(Question(cap=cap, requests=1000), like)
        began_s = time.process_time()
        simulate(load.requests, load.server, load.roofline, costs, Frontend(4, 1), cap)
        print(f"1,000 requests at cap {cap}: {time.process_time() - began_s:.3f} s")
    began_s = time.process_time()
    for cap in range(4, 104):
        predict(calibration, asked(Question(cap=cap), like))
    print(f"100 answers with intervals: {time.process_time() - began_s:.1f} s")


if __name__ == "__main__":
    main()
