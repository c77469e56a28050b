"""Made-up recordings of profilers: an export of Nsight Systems, and the events of a trace of torch.profiler."""

import sqlite3
from pathlib import Path
from typing import Any

PROCESS = 7 << 24
SCHEMA = {
    "StringIds": "id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL",
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        "start INTEGER, end INTEGER, deviceId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, "
        "demangledName INTEGER, shortName INTEGER, graphNodeId INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_MEMCPY": (
        "start INTEGER, end INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, bytes INTEGER, "
        "copyKind INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_MEMSET": (
        "start INTEGER, end INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER"
    ),
    "CUPTI_ACTIVITY_KIND_RUNTIME": (
        "start INTEGER, end INTEGER, globalTid INTEGER, correlationId INTEGER, nameId INTEGER"
    ),
    "NVTX_EVENTS": "start INTEGER, end INTEGER, eventType INTEGER, text TEXT, textId INTEGER, globalTid INTEGER",
    "GPU_METRICS": "timestamp INTEGER, typeId INTEGER, metricId INTEGER, value INTEGER",
    "TARGET_INFO_GPU_METRICS": "typeId INTEGER, typeName TEXT, metricId INTEGER, metricName TEXT",
    "META_DATA_EXPORT": "name TEXT, value TEXT",
}
FLASH = "void cutlass::device_kernel<flash::FlashAttnFwdSm90<int> >(int)"
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "StringIds": [(1, FLASH), (2, "device_kernel"), (3, "nvjet_sm90_a"), (4, "DecodeStep1")],
    "CUPTI_ACTIVITY_KIND_KERNEL": [
        (5_000, 6_000, 0, 7, 11, PROCESS, 1, 2, None),
        (6_500, 8_500, 0, 7, 12, PROCESS, 3, 3, 77),
        (8_000, 9_000, 0, 8, 12, PROCESS, 3, 3, 78),
        (9_500, 9_600, 0, 8, 12, PROCESS + (1 << 24), 3, 3, None),
    ],
    "CUPTI_ACTIVITY_KIND_MEMCPY": [(4_000, 4_100, 7, 10, PROCESS, 64, 1)],
    "CUPTI_ACTIVITY_KIND_MEMSET": [(4_200, 4_300, 7, 9, PROCESS)],
    "CUPTI_ACTIVITY_KIND_RUNTIME": [
        (1_500, 1_600, PROCESS + 3, 9, 1),
        (1_700, 1_800, PROCESS + 3, 10, 1),
        (2_000, 2_100, PROCESS + 3, 11, 1),
        (3_500, 3_600, PROCESS + 4, 12, 1),
    ],
    "NVTX_EVENTS": [
        (1_000, 20_000, 60, "Decode", None, PROCESS + 3),
        (1_200, 2_500, 59, "DecodeStep0", None, PROCESS + 3),
        (3_000, 4_500, 59, None, 4, PROCESS + 3),
        (1_100, None, 34, "DecodingStart", None, PROCESS + 3),
        (1_150, None, 59, "never closed", None, PROCESS + 3),
        (1_160, 1_170, 75, "a domain", None, PROCESS + 3),
    ],
    "GPU_METRICS": [
        (1_500, 256, 1, 40),
        (1_500, 256, 2, 5),
        (1_500, 256, 3, 60),
        (1_500, 256, 4, 99),
        (2_500, 257, 1, 20),
    ],
    "TARGET_INFO_GPU_METRICS": [
        (kind, "GH100", number, name)
        for kind in (256, 257)
        for number, name in enumerate(
            [
                "DRAM Read Bandwidth [Throughput %]",
                "DRAM Write Bandwidth [Throughput %]",
                "Compute Warps in Flight [Throughput %]",
                "Compute Warps in Flight [Avg Warps per Cycle]",
            ],
            start=1,
        )
    ],
    "META_DATA_EXPORT": [("EXPORT_SCHEMA_VERSION", "3.11.0")],
}


def write_export(path: Path, without: tuple[str, ...] = (), **schema: str) -> Path:
    """Write an export with all tables but some, and other columns for those named."""
    with sqlite3.connect(path) as database:
        for table, columns in SCHEMA.items():
            if table in without:
                continue
            database.execute(f"CREATE TABLE {table} ({schema.get(table, columns)})")
            for row in ROWS[table] if table not in schema else []:
                database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    database.close()
    return path


def event(category: str, name: str, ts: float, dur: float, **arguments: Any) -> dict[str, Any]:
    """Return a complete event of a trace."""
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 1, "args": arguments}


EVENTS = [
    event("user_annotation", "PrefillStep0", 100.0, 50.0),
    event("user_annotation", "DecodeStep3", 200.0, 40.0),
    event("user_annotation", "ProfilerStep#1", 0.0, 500.0),
    event("gpu_user_annotation", "DecodeStep3", 260.0, 60.0),
    event("cpu_op", "aten::mm", 101.0, 3.0),
    event("cuda_runtime", "cudaLaunchKernel", 110.0, 2.0, correlation=1),
    event("cuda_runtime", "cudaGraphLaunch", 210.0, 5.0, correlation=2),
    event("cuda_driver", "cuLaunchKernelEx", 300.0, 2.0, correlation=3),
    event("kernel", "nvjet_sm90_a", 160.0, 30.0, correlation=1, stream=7),
    event("kernel", "FlashAttnFwdSm90", 260.0, 10.0, correlation=2, stream=7),
    event("kernel", "mystery", 265.0, 10.0, correlation=2, stream=8),
    event("gpu_memset", "Memset (Device)", 280.0, 1.0, correlation=3, stream=7),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 300.0, 2.0, stream=7),
    {"ph": "M", "name": "process_name"},
]
