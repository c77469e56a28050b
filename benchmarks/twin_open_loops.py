"""The twin against open loops that it predicted before they were measured (config/twin-open-loops.yaml).

    python benchmarks/twin_open_loops.py --predict     # before: benchmarks/twin/open-loops-CARD.csv, committed then
    python benchmarks/twin_open_loops.py --recorded recorded/h100-twin

Before the run the coefficients are those of five points of the H200 of recorded/h200, the GPU's share of a step moved
by the roofline to the card; the KV pool is the roofline's. After it there are two more ways: calibrated from five caps
of the new server (1, 4, 16, 64, 256: what `choose` takes of the sweep `caps`), and from two (the least and the
greatest), with the coefficients of the H200 as the prior and without.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.config.files import read_config_files
from memgap.recorded.files import all_points
from memgap.roofline.gpus import find_gpu
from memgap.roofline.predict import kv_capacity_tokens
from memgap.twin.calibrate import Calibration, calibrate, choose, elsewhere, transferred
from memgap.twin.predict import predict
from memgap.twin.stored import Observation, observation
from memgap.workflow import load_study

ROOT = Path(__file__).resolve().parents[1]
CONFIG, PREDICTED = ROOT / "config/twin-open-loops.yaml", ROOT / "benchmarks/twin"
MODEL, CARDS = "opt-1.3b", ("H100", "H200")
QUANTITIES = (
    *("output_throughput_tok_s", "itl_mean_ms", "itl_p99_ms", "tpot_mean_ms"),
    *("ttft_mean_ms", "ttft_median_ms", "ttft_p99_ms", "e2e_mean_ms"),
)


def recorded(folder: Path) -> list[Observation]:
    """Return what the twin can simulate of a recorded study's points of MODEL on one server."""
    points = [one for one in all_points(folder) if one["status"] == "ok" and one["record"].get("batch_cap")]
    mine = [one for one in points if one["record"]["model"]["name"] == MODEL and "kind" not in one["record"]]
    return [observation(one) for one in mine if one["record"]["server"]["replicas"] == 1]


def known() -> Calibration:
    """Return the calibration from five points of the recorded H200."""
    return calibrate(choose(recorded(ROOT / "recorded/h200")))


def planned(card: str, like: Observation) -> list[Observation]:
    """Return the points of the configuration for a card, none of them measured."""
    study = load_study(read_config_files([CONFIG]))
    gpu = find_gpu(card)
    found = []
    for group in ("caps", f"rates-{card.lower()}"):
        for _, key in study.groups[group].members:
            record = study.points[key].record
            facts = {"kv_block_tokens": 16, "kv_pool_tokens": kv_capacity_tokens(replace(like.setup, gpu=gpu))}
            point: dict[str, Any] = {"key": key, "record": record, "engine": facts, "hardware": {}, "summary": {}}
            one = observation(point)
            found.append(replace(one, setup=replace(one.setup, gpu=gpu)))
    return found


def rows(way: str, calibration: Calibration, points: Sequence[Observation]) -> list[dict[str, Any]]:
    """Return a row a point and quantity."""
    found = []
    for point in points:
        said = predict(calibration, point)
        for name in QUANTITIES:
            value = said.values[name]
            found.append(
                {
                    "way": way,
                    "key": point.key,
                    "load": f"cap {point.batch_cap}" if point.concurrency else f"{point.rate_req_s:g} req/s",
                    "quantity": name,
                    "predicted": value.value,
                    "low": value.low,
                    "high": value.high,
                    "measured": point.summary.get(name),
                    "extrapolates": "; ".join(said.extrapolates),
                }
            )
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return errors and coverage of the rates by way and quantity."""
    open_loops = table[table["load"].str.endswith("req/s") & table["measured"].notna()]
    error = (open_loops["predicted"] / open_loops["measured"] - 1).abs()
    inside = open_loops["measured"].between(open_loops["low"], open_loops["high"])
    grouped = open_loops.assign(error=error, inside=inside).groupby(["way", "quantity"], sort=False)
    return grouped.agg(
        points=("error", "size"),
        median_error=("error", "median"),
        p90_error=("error", lambda one: one.quantile(0.9)),
        greatest_error=("error", "max"),
        coverage=("inside", "mean"),
    ).reset_index()


def main() -> None:
    """Predict, or compare with what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--recorded", type=Path)
    parser.add_argument("--out", type=Path, default=PREDICTED)
    options = parser.parse_args()
    of_h200 = known()
    options.out.mkdir(exist_ok=True)
    if options.predict:
        for card in CARDS:
            there = transferred(of_h200)
            table = pd.DataFrame(rows("H200, before", there, planned(card, of_h200.points[0])))
            table.drop(columns="measured").to_csv(
                options.out / f"open-loops-{card.lower()}.csv", index=False, float_format="%.5g", lineterminator="\n"
            )
        return
    points = recorded(options.recorded)
    caps = [one for one in points if one.concurrency]
    card = points[0].setup.gpu.alias.lower()
    before = pd.read_csv(PREDICTED / f"open-loops-{card}.csv", keep_default_na=False)
    measured = {(one.key, name): one.summary.get(name) for one in points for name in QUANTITIES}
    before["measured"] = [measured.get(pair) for pair in zip(before["key"], before["quantity"], strict=True)]
    two = choose(caps, 2)
    ways = [
        *rows("5 caps", calibrate(choose(caps)), points),
        *rows("2 caps and H200", calibrate(two, prior=elsewhere(of_h200)), points),
        *rows("2 caps alone", calibrate(two), points),
    ]
    table = pd.concat([before, pd.DataFrame(ways)], ignore_index=True)
    table.to_csv(options.out / f"open-loops-{card}-measured.csv", index=False, float_format="%.5g", lineterminator="\n")
    print(summary(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
