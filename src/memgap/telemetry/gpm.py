"""NVML's GPM counters: how active the SMs, warps, tensor cores and the DRAM of a GPU were between two samples.

`python -m memgap.telemetry.gpm --out FILE` samples until its standard input closes. Hopper and newer have them;
elsewhere the file keeps its header only. DRAM counts reads and writes together, as NVML gives no reads alone.
"""

import argparse
import csv
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """Sample the first visible GPU until standard input closes."""
    parser = argparse.ArgumentParser(description="Sample NVML's GPM counters.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--interval", type=float, default=INTERVAL_S)
    options = parser.parse_args(argv)
    os.set_blocking(0, False)
    with options.out.open("w", encoding="utf-8", newline="") as file, Nvml() as gpu:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        file.flush()
        if not gpu.devices:
            return 0
        try:
            for row in readings(gpu.devices[0], options.interval):
                writer.writerow(row)
                file.flush()
                if select.select([sys.stdin], [], [], 0)[0] and not os.read(0, 4096):
                    break
        except pynvml.NVMLError as error:
            print(f"memgap: no GPM counters: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
