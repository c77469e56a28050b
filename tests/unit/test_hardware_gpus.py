"""The GPU table: complete, consistent in itself, and read by name without guessing."""

import pytest

from memgap.errors import UserError
from memgap.roofline.gpus import GIB, find_gpu, gpu_of_nvml, known_gpus

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
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-PCIE-40GB", None),
        (None, None),
    ],
)
def test_nvml_names_match_whole_words(nvml: str | None, alias: str | None) -> None:
    found = gpu_of_nvml(nvml)
    assert (found.alias if found else None) == alias


def test_unknown_gpus_and_types_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"unknown GPU 'H300' \(did you mean H200\? known: A10"):
        find_gpu("H300")
    with pytest.raises(UserError, match="V100 has no bf16 peak in the GPU table"):
        find_gpu("V100").peak_flop_s("bfloat16")
    with pytest.raises(UserError, match="no roofline for the dtype 'int3'"):
        find_gpu("V100").peak_flop_s("int3")
