"""The GPU table: complete, consistent in itself, and read by name without guessing."""

from typing import Any

import pytest

from memgap.errors import UserError
from memgap.roofline.gpus import (
    GIB,
    MIB,
    Gpu,
    bears,
    differences,
    find_gpu,
    gpu_of_hardware,
    gpu_of_nvml,
    known_gpus,
)

DENSE_FP16_FLOP_PER_CLOCK = {
    "V100": 1024,
    "T4": 1024,
    "A100": 2048,
    "A100-40GB": 2048,
    "A100-PCIe": 2048,
    "A30": 2048,
    "A40": 1024,
    "A10": 1024,
    "L40S": 1024,
    "L4": 1024,
    "RTX6000-Ada": 1024,
    "RTX3090": 512,
    "RTX4090": 512,
    "RTX5090": 512,
    "H100-PCIe": 4096,
    "MI300X": 2048,
}
"""Operations of a multiprocessor's tensor units in a clock, by architecture; GeForce does half with FP32 sums."""


@pytest.mark.parametrize("gpu", known_gpus().values(), ids=lambda gpu: gpu.alias)
def test_every_gpu_is_plausible_and_cited(gpu) -> None:  # type: ignore[no-untyped-def]
    assert gpu.source.title and gpu.source.url.startswith("https://") and 2015 <= gpu.source.year <= 2030
    assert 10 * GIB < gpu.memory_bytes < 300 * GIB
    assert 0.1e12 < gpu.bandwidth_bytes_s < 10e12
    assert {"fp16"} <= gpu.flop_s.keys() <= {"fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"}
    assert gpu.flop_s.get("bf16", gpu.flop_s["fp16"]) == gpu.flop_s["fp16"]
    assert gpu.flop_s.get("fp64", 0.0) < gpu.flop_s.get("fp32", 1.0) < gpu.flop_s["fp16"]
    for eight_bits in ("fp8", "int8"):
        if eight_bits in gpu.flop_s:
            assert gpu.flop_s[eight_bits] / gpu.flop_s["fp16"] >= 1.99


@pytest.mark.parametrize("alias", sorted(DENSE_FP16_FLOP_PER_CLOCK))
def test_tensor_peaks_follow_from_multiprocessors_and_clock(alias: str) -> None:
    gpu = find_gpu(alias)
    assert gpu.boost_mhz is not None
    peak = DENSE_FP16_FLOP_PER_CLOCK[alias] * gpu.sms * gpu.boost_mhz * 1e6
    within = 0.1 if alias == "H100-PCIe" else 0.04
    assert gpu.flop_s["fp16"] == pytest.approx(peak, rel=within), "sold with a lower clock under load, if at all"


def test_aliases_are_unique_and_found_in_any_case() -> None:
    aliases = [gpu.alias.casefold() for gpu in known_gpus().values()]
    assert len(set(aliases)) == len(aliases)
    assert find_gpu("h200") is find_gpu("NVIDIA H200") is find_gpu("H200")


@pytest.mark.parametrize(
    ("nvml", "alias"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM-80GB", "A100"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("nvidia geforce rtx 4090", "RTX4090"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA A30 MIG 1c.2g.12gb", None),
        ("MIG 1g.5gb", None),
        ("NVIDIA L4-6Q", None),
        ("NVIDIA L40S-48C", None),
        ("GRID T4-16Q", None),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 5090 D", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 96GB HBM3", None),
        ("NVIDIA H100", None),
        ("NVIDIA GH200 480GB", None),
        ("Tesla T4G", None),
        ("Tesla V100-SXM2-16GB", None),
        ("Tesla V100-SXM3-32GB", None),
        ("NVIDIA A800-SXM4-80GB", None),
        ("AMD Instinct MI300X VF", None),
        ("NVIDIA H100 80GB HBM3 + NVIDIA L4", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_is_a_gpu_only_as_a_whole(nvml: str | None, alias: str | None) -> None:
    found = gpu_of_nvml(nvml)
    assert (found.alias if found else None) == alias
    if nvml and alias is None:
        with pytest.raises(UserError, match="unknown GPU"):
            find_gpu(nvml)


@pytest.mark.parametrize("gpu", known_gpus().values(), ids=lambda gpu: gpu.alias)
def test_every_gpu_is_found_by_all_its_names_and_what_it_reports(gpu: Gpu) -> None:
    for name in gpu.names:
        assert gpu_of_nvml(name, gpu.memory_bytes, gpu.sms) is gpu
        assert gpu_of_nvml(f"{name} MIG 1g.1gb") is gpu_of_nvml(f"{name}-1Q") is gpu_of_nvml(f"{name} Ti") is None
        assert gpu_of_nvml(name, gpu.memory_bytes / 2) is gpu_of_nvml(name, gpu.memory_bytes, gpu.sms - 2) is None
    assert gpu_of_nvml(gpu.name, 0.985 * gpu.memory_bytes) is gpu, "an older driver keeps more for itself"
    assert gpu.link_bytes_s is None or 10e9 < gpu.link_bytes_s < gpu.bandwidth_bytes_s


REPORTED_MIB = {"L4": 23034, "A10": 23028, "L40S": 46068, "A40": 46068, "T4": 15360, "H200": 143771, "H100": 81559}


@pytest.mark.parametrize("alias", sorted(REPORTED_MIB))
def test_memory_is_what_cards_report(alias: str) -> None:
    assert find_gpu(alias).memory_bytes == REPORTED_MIB[alias] * MIB


@pytest.mark.parametrize(("alias", "sms"), [("L4", 58), ("GB200", 152), ("B200", 148), ("A30", 56), ("H100-PCIe", 114)])
def test_multiprocessors_are_what_drivers_report(alias: str, sms: int) -> None:
    gpu = find_gpu(alias)
    assert gpu_of_nvml(gpu.name, gpu.memory_bytes, sms) is gpu


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("NVIDIA H200", "H200", True),
        ("NVIDIA H200", "h20", False),
        ("NVIDIA H20-3e", "H20", True),
        ("NVIDIA A100-SXM4-80GB", "A100", True),
        ("NVIDIA L40S", "L40", False),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "H100", False),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG 3g.40gb", True),
        ("CPU", "CPU", True),
    ],
)
def test_a_part_of_a_name_is_whole_words_of_it(name: str, part: str, expected: bool) -> None:
    assert bears(name, part) is expected


def machine(*cards: dict[str, float], name: str = "NVIDIA L40S") -> dict[str, Any]:
    every = [{"memory_bytes": 46068 * MIB, "sms": 142, "sm_clock_max_mhz": 2520, **one} for one in cards]
    memory = sum(one["memory_bytes"] for one in every)
    return {"gpu_name": name, "gpu_count": len(cards), "gpu_memory_bytes": memory, "gpus": every}


def test_what_the_driver_tells_is_compared_with_the_table() -> None:
    l40s = find_gpu("L40S")
    for hardware in (machine({}), machine({}, {})):
        assert gpu_of_hardware(hardware) is l40s
        assert differences(hardware) == []
    no_ecc = machine({"memory_bytes": 49140 * MIB})
    assert gpu_of_hardware(no_ecc) is l40s
    assert differences(no_ecc) == ["this NVIDIA L40S has 49,140 MiB of memory, the GPU table 46,068"]
    half = machine({}, {"memory_bytes": 23034 * MIB})
    assert gpu_of_hardware(half) is None
    assert "taken for another GPU" in differences(half)[0]
    fewer = machine({"sms": 71})
    assert gpu_of_hardware(fewer) is None
    assert "71 multiprocessors, the GPU table 142" in differences(fewer)[0]
    slower = machine({"sm_clock_max_mhz": 2000})
    assert gpu_of_hardware(slower) is l40s
    assert "clocks up to 2000 MHz, the GPU table's up to 2520" in differences(slower)[0]
    assert differences(machine({"sm_clock_max_mhz": 3105})) == []
    assert differences(machine({"sms": 1}, name="NVIDIA L40S-48Q")) == []


def test_points_that_hold_less_of_their_gpus_are_read_as_well() -> None:
    memory = 143771 * MIB
    for count in (1, 2, None):
        old = {"gpu_name": "NVIDIA H200", "gpu_count": count, "gpu_memory_bytes": (count or 1) * memory}
        assert gpu_of_hardware(old) is find_gpu("H200")
    assert gpu_of_hardware({"gpu_name": "NVIDIA H200"}) is find_gpu("H200")
    assert gpu_of_hardware({"gpu_name": "NVIDIA H200", "gpu_count": 1, "gpu_memory_bytes": memory / 2}) is None
    assert gpu_of_hardware({"gpu_name": None, "gpus": []}) is None


def test_unknown_gpus_and_types_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"unknown GPU 'H300' \(did you mean H200\? known: A10"):
        find_gpu("H300")
    with pytest.raises(UserError, match="V100 has no bf16 peak in the GPU table"):
        find_gpu("V100").peak_flop_s("bfloat16")
    with pytest.raises(UserError, match="no roofline for the dtype 'int3'"):
        find_gpu("V100").peak_flop_s("int3")
