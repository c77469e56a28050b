"""The twin on other people's curves: calibrated on a few concurrencies of a server, the others predicted.

    .venv/bin/python benchmarks/twin_silicon.py ../shared/reference/external/silicon_sample.csv --out silicon.csv

The file is that of benchmarks/silicon_roofline.py. A curve is the rows of one pool of servers that share all but the
concurrency, five or more of them; of vLLM and SGLang, since the scheduler is theirs. Calibrated on the least, the
greatest and (with --points 3) the middle concurrency, on TPOT alone, from priors twice as wide as ours, which were set
for vLLM on an H200. Lengths are drawn evenly from 80 to 100 % of the row's, as that benchmark does. B300 is taken for a
B200. Where the file is not there, this says so and ends with 0.
"""

import argparse
import csv
import importlib.util
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from memgap.errors import UserError
from memgap.roofline.gpus import find_gpu
from memgap.roofline.predict import Setup
from memgap.twin.calibrate import PRIORS, Prior, calibrate
from memgap.twin.predict import predict
from memgap.twin.simulate import Request, Server
from memgap.twin.stored import Observation

GPUS = {"h100_sxm": "H100", "h200_sxm": "H200", "b200_sxm": "B200", "b300_sxm": "B200", "gb200": "GB200"}
ENGINES = ("vllm", "sglang")
LEAST = 5
WIDER = 2.0
REQUESTS_A_SEAT = 4


def roofline_benchmark() -> ModuleType:
    """Return the benchmark beside this one, which knows what models and servers the rows mean."""
    spec = importlib.util.spec_from_file_location("silicon_roofline", Path(__file__).with_name("silicon_roofline.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curves(rows: Iterator[dict[str, str]]) -> dict[str, dict[int, dict[str, str]]]:
    """Return the rows of each curve by concurrency, by its name."""
    found: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows:
        told = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
        if row["mode"] != "agg" or row["backend"] not in ENGINES or told is None or row["system"] not in GPUS:
            continue
        apart = ("id", "batch_size", "silicon_ttft_ms", "silicon_tpot_ms", "silicon_data_source")
        config = re.search(r"config_id=(\d+)", row["silicon_data_source"])
        name = "|".join([*(value for key, value in row.items() if key not in apart), config[1] if config else ""])
        found.setdefault(name, {})[int(told[1])] = row
    return {name: found[name] for name in found if len(found[name]) >= LEAST}


def observed(row: dict[str, str], concurrency: int, silicon: Any) -> Observation:
    shape = silicon.shape_of(row["model_path"], row["precision"].replace("bf16", ""))
    spread = silicon.spread_of(row)
    setup = Setup(shape, find_gpu(GPUS[row["system"]]), "bfloat16", None, parallel=spread)
    stream = np.random.RandomState(0)
    count = max(REQUESTS_A_SEAT * concurrency, 8)
    lengths = [stream.randint(int(0.8 * size), size + 1, size=count) for size in (int(row["isl"]), int(row["osl"]))]
    return Observation(
        key=row["id"],
        model=row["model_path"],
        workload=f"{row['isl']} in, {row['osl']} out",
        batch_cap=concurrency,
        repeat=0,
        requests=tuple(Request(int(prompt), int(output)) for prompt, output in zip(*lengths, strict=True)),
        server=Server(4096, 8192, 1 << 24),
        concurrency=concurrency,
        rate_req_s=None,
        setup=setup,
        graph_tokens=512,
        max_model_len=int(row["isl"]) + int(row["osl"]),
        summary={"itl_mean_ms": float(row["silicon_tpot_ms"]), "ttft_mean_ms": float(row["silicon_ttft_ms"])},
    )


def chosen(points: Sequence[Observation], count: int) -> list[Observation]:
    """Return the points to calibrate from, spread evenly over the curve."""
    return [points[round(place)] for place in np.linspace(0, len(points) - 1, count)]


def compared(name: str, points: Sequence[Observation], count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each point of a curve."""
    train = chosen(points, count)
    size = len(PRIORS)
    only = [replace(one, summary={"itl_mean_ms": one.summary["itl_mean_ms"]}) for one in train]
    calibration = calibrate(only, prior=Prior(np.zeros(size), np.eye(size) / WIDER))
    for point in points:
        said = predict(calibration, point)
        tpot, ttft = said.values["itl_mean_ms"], said.values["ttft_mean_ms"]
        measured = point.summary["itl_mean_ms"]
        yield {
            "curve": name,
            "id": point.key,
            "model": point.model.split("/")[1],
            "format": name.split("|")[4],
            "engine": name.split("|")[0],
            "gpu": name.split("|")[3],
            "concurrency": point.batch_cap,
            "calibrated": point in train,
            "tpot_ms": measured,
            "tpot_predicted_ms": tpot.value,
            "tpot_error": tpot.value / measured - 1,
            "inside": tpot.low <= measured <= tpot.high,
            "ttft_error": ttft.value / point.summary["ttft_mean_ms"] - 1,
        }


def main(arguments: list[str] | None = None) -> int:
    """Print errors of what was not calibrated on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--each", type=int, default=1, help="take each so-many-th curve only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if not options.file.exists():
        print(f"SKIPPED: {options.file} is not there; nothing was compared", file=sys.stderr)
        return 0
    with options.file.open(encoding="utf-8", newline="") as file:
        all_curves = curves(csv.DictReader(file))
    silicon = roofline_benchmark()
    rows: list[dict[str, Any]] = []
    began_s = time.monotonic()
    for name, by_concurrency in list(all_curves.items())[:: options.each]:
        try:
            points = [observed(by_concurrency[one], one, silicon) for one in sorted(by_concurrency)]
            rows += compared(name, points, options.points)
        except UserError as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
        if options.out:
            pd.DataFrame(rows).to_csv(options.out, index=False)
    table = pd.DataFrame(rows)
    held = table[~table["calibrated"]]
    print(f"{table['curve'].nunique()} of {len(all_curves)} curves, {time.monotonic() - began_s:.0f} s")
    for by in (["engine", "format"], ["model"], []):
        groups = held.groupby(by, sort=True) if by else [("all", held)]
        for group, own in groups:
            tpot, ttft = own["tpot_error"].abs(), own["ttft_error"].abs()
            print(
                f"{group}: {len(own)} rows, TPOT error median {tpot.median():.3f}, p90 {tpot.quantile(0.9):.3f}, "
                f"inside {own['inside'].mean():.2f}; TTFT median {ttft.median():.3f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
