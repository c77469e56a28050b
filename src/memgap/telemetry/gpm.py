"""NVML's GPM counters: how active the SMs, warps, tensor cores and the DRAM of a GPU were between two samples.

`python -m memgap.telemetry.gpm --out FILE` samples until its standard input closes. Hopper and newer have them;
elsewhere the file keeps its header only. With `--gpus` they are those of the named GPUs, of several the mean over them;
power is summed, the slowest clock counts. DRAM counts reads and writes together, as NVML gives no reads alone.
"""

import argparse
import csv
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memgap.telemetry.gpus import id_list
from memgap.telemetry.nvml import Nvml

try:
    import pynvml
except ImportError:
    pynvml = None

METRICS = {
    "sm_active": "NVML_GPM_METRIC_SM_UTIL",
    "warps": "NVML_GPM_METRIC_SM_OCCUPANCY",
    "tensor": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "dram": "NVML_GPM_METRIC_DRAM_BW_UTIL",
}
COLUMNS = ("time_monotonic_s", *(f"{name}_fraction" for name in METRICS), "sm_clock_mhz", "power_w")
INTERVAL_S = 0.02


def readings(device: Any, interval_s: float) -> Iterator[dict[str, float]]:
    """Yield one row of `COLUMNS` each interval, of the time since the row before; `time_monotonic_s` is its end.

    Raises pynvml.NVMLError where the GPU or the driver has no such counters.
    """
    if not pynvml.nvmlGpmQueryDeviceSupport(device).isSupportedDevice:
        return
    before, after = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    try:
        pynvml.nvmlGpmSampleGet(device, before)
        due_s = time.monotonic() + interval_s
        while True:
            time.sleep(max(due_s - time.monotonic(), 0.0))
            pynvml.nvmlGpmSampleGet(device, after)
            now_s = time.monotonic()
            row = {"time_monotonic_s": now_s, **_fractions(before, after)}
            row["sm_clock_mhz"] = float(pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM))
            row["power_w"] = pynvml.nvmlDeviceGetPowerUsage(device) / 1e3
            yield row
            before, after = after, before
            due_s = max(due_s + interval_s, now_s)
    finally:
        pynvml.nvmlGpmSampleFree(before)
        pynvml.nvmlGpmSampleFree(after)


def together(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return one row of all GPUs: counters that every one has are averaged, watts summed, the slowest clock counts."""
    shared = [name for name in rows[0] if all(name in one for one in rows)]
    found = {name: sum(one[name] for one in rows) / len(rows) for name in shared}
    found |= {"time_monotonic_s": rows[-1]["time_monotonic_s"]}
    found |= {"power_w": sum(one["power_w"] for one in rows), "sm_clock_mhz": min(one["sm_clock_mhz"] for one in rows)}
    return found


def _fractions(before: Any, after: Any) -> dict[str, float]:
    asked = pynvml.c_nvmlGpmMetricsGet_t()
    asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    asked.numMetrics = len(METRICS)
    asked.sample1, asked.sample2 = before, after
    for place, constant in enumerate(METRICS.values()):
        asked.metrics[place].metricId = getattr(pynvml, constant)
    pynvml.nvmlGpmMetricsGet(asked)
    return {
        f"{name}_fraction": asked.metrics[place].value / 100
        for place, name in enumerate(METRICS)
        if asked.metrics[place].nvmlReturn == 0
    }


def main(argv: list[str] | None = None) -> int:
    """Sample the GPUs until standard input closes; of those that are visible the first where none are named."""
    parser = argparse.ArgumentParser(description="Sample NVML's GPM counters.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--interval", type=float, default=INTERVAL_S)
    parser.add_argument("--gpus", type=id_list, help="ids of the engine's GPUs, with commas; empty for none")
    options = parser.parse_args(argv)
    os.set_blocking(0, False)
    with options.out.open("w", encoding="utf-8", newline="") as file, Nvml(only=options.gpus) as gpu:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        file.flush()
        devices = gpu.devices if options.gpus is not None else gpu.devices[:1]
        try:
            for rows in zip(*(readings(one, options.interval) for one in devices), strict=False):
                row = together(rows)
                writer.writerow(row)
                file.flush()
                if select.select([sys.stdin], [], [], 0)[0] and not os.read(0, 4096):
                    break
        except pynvml.NVMLError as error:
            print(f"memgap: no GPM counters: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
