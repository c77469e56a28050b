"""Nsight Compute's metrics: which to ask for, their units, and how FLOP and peaks follow from them.

What the counters mean, from the metrics' names and peaks in an export of an NVIDIA H200 (132 SMs) held against
published peaks:

- Scalar FP32: one FADD, FMUL or FFMA thread instruction is 1, 1, 2 FLOP. 128 FFMA a cycle and SM x 2 x 132 x 1.98 GHz
  = 66.9 TFLOP/s, the datasheet's FP32 peak. FP64 alike with 64 a cycle and SM.
- Scalar FP16: instructions are counted per thread, a packed pair once. NVIDIA's derived metrics say so in their names
  (`..._hadd_pred_on_x2`, `..._hmul_pred_on_x2`, `..._hfma_pred_on_x4`) and 128 x 4 x 132 x 1.98 GHz = 133.8 TFLOP/s is
  what NVIDIA gives for this chip's FP16 without tensor cores. So HADD2 and HMUL2 are 2 FLOP, HFMA2 is 4. This is an
  upper bound: a compiler also uses HFMA2 with one useful half, or to load a constant.
- Tensor cores: `sm__ops_path_tensor_src_*` counts a multiply and an add as two operations. The dense peak of
  `op_hgmma_src_fp16_sparsity_off` is 540,672 a cycle; x 1.83 GHz (tensor clock) = 989 TFLOP/s, the datasheet's dense
  peak. The peaks of the metrics without `sparsity` in their names (`src_fp16` 1,081,344, `src_tf32_dst_fp32` 540,672,
  `src_int8` 2,162,688) are those of structured sparsity, twice the dense ones. FP64 has no sparse variant (33,792).

What remains an assumption until a run on a GPU settles it with `gemm_count_ratio`: that the *counts*, like the peaks,
are two for each multiply-add that the hardware does, padding of tiles included; that a kernel without sparse
instructions counts the same in `src_fp16` and `..._sparsity_off`; and that BF16 vector instructions count as FP16 ones.
"""

import math
import re
from collections.abc import Mapping

SASS = "smsp__sass_thread_inst_executed_op_{}_pred_on"
STALLS = (
    *("barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle", "long_scoreboard"),
    *("math_pipe_throttle", "membar", "mio_throttle", "misc", "no_instruction", "not_selected", "selected"),
    *("short_scoreboard", "sleeping", "tex_throttle", "wait"),
)
"""Reasons why a warp waits, as ncu names them on Hopper (`selected` is not a wait: the warp issued)."""

STALL_METRIC = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_STALL = re.compile(STALL_METRIC.replace(".", r"\.").format(r"(\w+)"))
_TENSOR = re.compile(r"^sm__ops_path_tensor_src_([a-z]+\d+)(?:_dst_([a-z]+\d+))?(?:_sparsity_(on|off))?\.sum$")

_DURATION = "gpu__time_duration.sum"
_DRAM_BYTES = ["dram__bytes_read.sum", "dram__bytes_write.sum"]
_DRAM_FRACTIONS = [f"{metric}.pct_of_peak_sustained_elapsed" for metric in _DRAM_BYTES]
_OCCUPANCY = [
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__cycles_active.avg",
    "sm__cycles_elapsed.avg",
]
_CLOCKS = ["sm__cycles_elapsed.avg.per_second", "device__attribute_max_gpu_frequency_khz"]
_DRAM_PEAK = ["dram__bytes.sum.peak_sustained", "dram__cycles_elapsed.avg.per_second"]
TENSOR_HOPPER = [
    f"sm__ops_path_tensor_src_{types}.sum"
    for types in ("fp16", "bf16_dst_fp32", "tf32_dst_fp32", "fp64", "int8", "fp8_sparsity_off", "fp8_sparsity_on")
]
"""Operations of tensor cores, each once, by the names that Hopper has; Ampere and Ada split `fp16` by destination."""

METRIC_SETS: dict[str, list[str]] = {
    "light": [
        _DURATION,
        *_DRAM_BYTES,
        *_DRAM_FRACTIONS,
        *_OCCUPANCY,
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    ],
    "roofline": [
        _DURATION,
        *_CLOCKS,
        *_DRAM_BYTES,
        *_DRAM_PEAK,
        *(f"{SASS.format(kind + op)}.sum" for kind in "fhd" for op in ("add", "mul", "fma")),
        *TENSOR_HOPPER,
        "sm__ops_path_tensor_op_hgmma_src_fp16_sparsity_off.sum.peak_sustained",
        "sm__sass_thread_inst_executed_op_ffma_pred_on.sum.peak_sustained",
    ],
    "stalls": [
        "smsp__average_warp_latency_per_inst_issued.ratio",
        *(STALL_METRIC.format(reason) for reason in STALLS),
    ],
    "memory": [
        _DURATION,
        *_DRAM_BYTES,
        *_DRAM_FRACTIONS,
        *_OCCUPANCY,
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
        "l1tex__t_sector_hit_rate.pct",
        "lts__t_sector_hit_rate.pct",
    ],
    "traffic": [_DURATION, *_DRAM_BYTES, *_DRAM_PEAK],
}
"""What to ask ncu for, by purpose, for Hopper. `light` needs the fewest replays; `roofline` the most, as instructions
are counted in instrumented replays of their own. Sets join: `metrics_of("light", "stalls")`."""

COUNTERS = (
    *("duration_s", "flop_fp32", "flop_fp16", "flop_fp64", "flop_tensor", "dram_read_bytes", "dram_write_bytes"),
    *("dram_read_fraction", "dram_fraction", "warps_in_flight_fraction", "sm_active_fraction", "tensor_pipe_fraction"),
    *("l1_hit_fraction", "l2_hit_fraction", "warp_latency_cycles"),
    *(f"stall_{reason}_cycles" for reason in STALLS),
    *("peak_flop_tensor_fp16_s", "peak_flop_fp32_s", "peak_dram_bytes_s", "sm_clock_hz"),
)
"""Columns that `counters` gives, in this order; further stall reasons follow."""

_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_TIMES = {"s": 1.0, "second": 1.0, "sec": 1.0}
_TIME_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "p": 1e-12}


def metrics_of(*sets: str) -> list[str]:
    """Return the metrics of the named sets, each once, in order. Raises KeyError for a name that is no set."""
    return list(dict.fromkeys(metric for name in sets for metric in METRIC_SETS[name]))


def unit_scale(unit: str) -> float:
    """Return what to multiply a value of that unit with: to seconds, bytes, hertz, plain counts, fractions, or those
    a second or cycle. Kilo is 1000, as ncu has it. NaN where the unit is unknown.
    """
    text = unit.strip()
    if text == "%":
        return 0.01
    top, _, bottom = text.partition("/")
    if bottom and (time := _scale(bottom, _TIMES, _TIME_PREFIXES)):
        return unit_scale(top) / time
    word = top.strip()
    if time := _scale(word, _TIMES, _TIME_PREFIXES):
        return time
    return _scale(word.removesuffix("s") or word, dict.fromkeys(_COUNTED, 1.0), _PREFIXES) or math.nan


_COUNTED = (
    *("", "byte", "hz", "inst", "cycle", "warp", "thread", "sector", "request", "block", "sample", "pass", "pas"),
    *("branche", "register", "sm", "cluster", "op", "flop", "%", "hop", "wavefront", "word"),
)


def _scale(word: str, bases: Mapping[str, float], prefixes: Mapping[str, float]) -> float:
    """Return the factor of a word made of a prefix and a base unit; 0 where it is none."""
    for base, value in bases.items():
        if word.lower().endswith(base):
            prefix = word[: len(word) - len(base)]
            factor = prefixes.get(prefix.lower() if prefix not in prefixes else prefix)
            if factor is not None:
                return factor * value
    return 0.0


def counters(values: Mapping[str, float]) -> dict[str, float]:
    """Return the counters of one kernel (`COUNTERS` and further `stall_<reason>_cycles`) from its metrics in base units
    (seconds, bytes, hertz, fractions of 1, counts). What cannot be told from the metrics at hand is NaN.
    """

    def first(*names: str) -> float:
        return next((values[name] for name in names if name in values and not math.isnan(values[name])), math.nan)

    read, write = (first(metric) for metric in _DRAM_BYTES)
    read_part, write_part = (first(metric) for metric in _DRAM_FRACTIONS)
    clock = first("sm__cycles_elapsed.avg.per_second", "smsp__cycles_elapsed.avg.per_second")
    peak_clock = sustained_clock_hz(values)
    found = {
        "duration_s": first(_DURATION, "gpu__time_duration.avg"),
        "flop_fp32": _scalar_flop(values, "f", 1.0),
        "flop_fp16": _scalar_flop(values, "h", 2.0),
        "flop_fp64": _scalar_flop(values, "d", 1.0),
        "flop_tensor": tensor_flop(values),
        "dram_read_bytes": read,
        "dram_write_bytes": write,
        "dram_read_fraction": read_part,
        "dram_fraction": read_part + write_part,
        "warps_in_flight_fraction": first("sm__warps_active.avg.pct_of_peak_sustained_active"),
        "sm_active_fraction": first("sm__cycles_active.avg") / (first("sm__cycles_elapsed.avg") or math.nan),
        "tensor_pipe_fraction": first("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"),
        "l1_hit_fraction": first("l1tex__t_sector_hit_rate.pct"),
        "l2_hit_fraction": first("lts__t_sector_hit_rate.pct"),
        "warp_latency_cycles": first("smsp__average_warp_latency_per_inst_issued.ratio"),
    }
    if math.isnan(found["dram_fraction"]):
        found["dram_fraction"] = first(
            "dram__bytes.sum.pct_of_peak_sustained_elapsed", "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
        )
    stalls = {f"stall_{match[1]}_cycles": values[name] for name in values if (match := _STALL.fullmatch(name))}
    found |= {f"stall_{reason}_cycles": math.nan for reason in STALLS} | stalls
    found["peak_flop_tensor_fp16_s"] = _dense_fp16_per_cycle(values) * peak_clock
    found["peak_flop_fp32_s"] = (
        2 * first("sm__sass_thread_inst_executed_op_ffma_pred_on.sum.peak_sustained") * peak_clock
    )
    found["peak_dram_bytes_s"] = first(_DRAM_PEAK[0]) * first(_DRAM_PEAK[1])
    found["sm_clock_hz"] = clock
    return found


def sustained_clock_hz(values: Mapping[str, float]) -> float:
    """Return the SM clock for peaks: the measured one, but no more than the GPU's highest where that is known.

    A kernel of a few microseconds measures too much (2.14 GHz on a GPU with 1.98 GHz at most): its cycles are counted
    over a little more than its duration.
    """
    measured = values.get("sm__cycles_elapsed.avg.per_second", math.nan)
    highest = values.get("device__attribute_max_gpu_frequency_khz", math.nan) * 1e3
    return measured if math.isnan(highest) else min(measured, highest)


def tensor_flop(values: Mapping[str, float]) -> float:
    """Return the operations of tensor cores over all types of operands (integer ones too), each counted once; NaN
    where none of the metrics is there.

    A total over destinations or sparsity goes before its parts, so an export with both counts nothing twice.
    """
    parts: dict[str, dict[tuple[str, str], float]] = {}
    for name, value in values.items():
        if (match := _TENSOR.match(name)) and not math.isnan(value):
            parts.setdefault(match[1], {})[(match[2] or "", match[3] or "")] = value
    if not parts:
        return math.nan
    return sum(_tensor_total(found) for found in parts.values())


def _tensor_total(found: Mapping[tuple[str, str], float]) -> float:
    """Return one source type's operations from its metrics by destination and sparsity."""
    by_destination: dict[str, float] = {}
    for destination in {destination for destination, _ in found}:
        whole = found.get((destination, ""))
        halves = [found[destination, sparsity] for sparsity in ("on", "off") if (destination, sparsity) in found]
        by_destination[destination] = sum(halves) if whole is None else whole
    return by_destination.get("", sum(by_destination.values()))


def _scalar_flop(values: Mapping[str, float], kind: str, lanes: float) -> float:
    """Return lanes x (adds + multiplies + 2 x fused) of a kind of instruction; NaN where one of the three is absent."""
    return lanes * sum(
        weight * _instructions(values, kind + op) for op, weight in (("add", 1.0), ("mul", 1.0), ("fma", 2.0))
    )


def _instructions(values: Mapping[str, float], op: str) -> float:
    """Return thread instructions: their sum, else the sum a cycle times the cycles."""
    name = f"{SASS.format(op)}.sum"
    if name in values:
        return values[name]
    return values.get(f"{name}.per_cycle_elapsed", math.nan) * values.get("smsp__cycles_elapsed.avg", math.nan)


def _dense_fp16_per_cycle(values: Mapping[str, float]) -> float:
    """Return the dense FP16 tensor peak in FLOP a cycle: the metric without sparsity, else half of that with."""
    for name in ("op_hgmma_src_fp16", "src_fp16_dst_fp32", "op_hmma_src_fp16_dst_fp32"):
        if (dense := f"sm__ops_path_tensor_{name}_sparsity_off.sum.peak_sustained") in values:
            return values[dense]
    return values.get("sm__ops_path_tensor_src_fp16.sum.peak_sustained", math.nan) / 2


def gemm_count_ratio(counted_flop: float, m: int, n: int, k: int) -> float:
    """Return counted FLOP of a matrix product (m x k) (k x n) over 2 m n k.

    1: multiply and add are counted as two, as this module assumes. 0.5: as one. A little above 1: the kernel pads its
    tiles. Measure it with m, n, k that are multiples of 256, so that there is no padding. Raises ValueError for an
    empty product.
    """
    if min(m, n, k) < 1:
        raise ValueError(f"a matrix product has no side below 1: {m} x {n} x {k}")
    return counted_flop / (2.0 * m * n * k)
