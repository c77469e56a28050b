"""A server's GPUs follow from its environment as CUDA reads it, or are not known; the machine's others are nobody's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from memgap.host.gpus import gpu_variables, server_gpus
from memgap.session.neighbours import processes_on_gpu
from memgap.session.provenance import hardware
from memgap.telemetry.gpm import together
from memgap.telemetry.gpus import Choice, Device, found_on, pinned, used, visible
from memgap.telemetry.nvml import Nvml
from memgap.telemetry.window import by_gpu
from tests.support.nvml import H100, use_cards
from tests.support.records import small_study
from tests.support.sessions import run_session

FOUR = tuple(Device(number, f"GPU-{number}a2b-77", "H", f"0000:0{4 - number}") for number in range(4))
MIXED = tuple(replace(one, name=f"KIND {one.index % 2}") for one in FOUR)
SLICES = tuple(Device(1, f"MIG-{part}c-9", "H MIG 1g", part=part, instance=(7 + part, 0)) for part in range(3))
LOAD = {"requests": 8, "warmup_requests": 0}
DIVIDED = (FOUR[0], replace(FOUR[1], divided=True, slices=SLICES))


def numbers(choice: Choice) -> list[int]:
    return [one.index if one.part is None else 10 * one.index + one.part for one in choice.devices]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("2", [2]),
        (" 3 , 1", [3, 1]),
        ("1,7", [1]),
        ("0,-1,2", [0]),
        ("7,1", []),
        ("1,,2", [1]),
        ("1gpu,2", [1, 2]),
        ("2,2", []),
        ("GPU-2a2b-77", [2]),
        ("GPU-3,GPU-1a2b", [3, 1]),
        ("GPU-3A2B", [3]),
        ("gpu-3a2b", []),
        ("GPU-3, GPU-1", [3]),
        ("GPU-3 ,GPU-1", [3, 1]),
        (" GPU-3", []),
        ("+1,01", []),
        ("+1", [1]),
        ("0.5", [0]),
        ("1;0", [1]),
        ("0,MIG-x", [0]),
        ("GPU-", []),
        ("GPU-9,GPU-1", []),
        ("GPU-1,2", [1]),
        ("1,GPU-2", [1]),
        ("GPU-1,GPU-1a2b", []),
        ("MIG-0c-9", []),
    ],
)
def test_entries_are_read_as_cuda_reads_them(chosen: str | None, expected: list[int]) -> None:
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert numbers(visible(FOUR, environment)) == expected


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("MIG-1c-9", [11]),
        ("MIG-2c", [12]),
        ("MIG-", []),
        ("MIG-GPU-1a2b-77/8/0", [11]),
        ("MIG-GPU-1a2b-77/8/1", []),
        ("GPU-1", [10]),
        ("MIG-2c,GPU-0", [12, 0]),
    ],
)
def test_slices_are_found_by_uuid_and_by_their_old_names(chosen: str, expected: list[int]) -> None:
    assert numbers(visible(DIVIDED, {"CUDA_VISIBLE_DEVICES": chosen})) == expected


def test_a_divided_gpu_is_its_first_slice_and_a_mixture_is_not_known() -> None:
    assert numbers(used(DIVIDED[1:], {}, 1)) == [10]
    assert numbers(used((replace(FOUR[0], divided=True),), {}, 1)) == []
    choice = used(DIVIDED, {}, 1)
    assert choice.devices == ()
    assert "divided by MIG" in choice.doubt


def test_several_gpus_are_the_first_visible_ones() -> None:
    assert numbers(used(FOUR, {}, 1)) == [0]
    assert numbers(used(FOUR, {}, 2)) == [0, 1]
    assert numbers(used(FOUR, {"CUDA_VISIBLE_DEVICES": "3,2,0"}, 2)) == [3, 2]
    assert numbers(used(FOUR, {}, 8)) == [0, 1, 2, 3]
    assert numbers(used(FOUR, {}, 2, first=1, step=2)) == [1, 3]


def test_numbers_count_in_the_order_of_the_variable() -> None:
    by_bus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert numbers(used(FOUR, by_bus, 1)) == [3]
    assert numbers(used(MIXED, {**by_bus, "CUDA_VISIBLE_DEVICES": "0"}, 1)) == [3]
    assert used(MIXED, {"CUDA_VISIBLE_DEVICES": "0"}, 1).devices == ()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in used(MIXED, {}, 1).doubt
    assert numbers(used(MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-2"}, 1)) == [2]
    assert len(used(MIXED, {}, 4).devices) == 4


def test_where_the_servers_processes_are_is_where_it_is() -> None:
    unknown = used(MIXED, {}, 1)
    assert numbers(found_on(unknown, MIXED[2:3], 1)) == [2]
    assert numbers(found_on(Choice(FOUR[:1]), FOUR[1:2], 1)) == [1]
    assert numbers(found_on(Choice(FOUR[:1]), (), 1)) == [0]
    assert numbers(found_on(Choice(FOUR[:2]), FOUR[:3], 2)) == [0, 1]
    assert numbers(found_on(Choice(FOUR[:2]), FOUR[3:], 2)) == [0, 1], "a rank that is not there yet"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2,3", [2, 3]), ("GPU-3", [3]), ("all", [0, 1, 2, 3]), ("void", [0, 1, 2, 3]), ("0,1,2,5", [0, 1, 2, 3])],
)
def test_what_a_container_was_given(value: str, expected: list[int]) -> None:
    environment = {"NVIDIA_VISIBLE_DEVICES": value}
    assert numbers(visible(FOUR, environment)) == expected
    kept_to = ",".join(FOUR[number].uuid for number in expected)
    assert pinned(FOUR, environment) == ({"CUDA_VISIBLE_DEVICES": kept_to} if len(expected) < 4 else {})
    chosen = {**environment, "CUDA_VISIBLE_DEVICES": "1"}
    assert numbers(visible(FOUR, chosen)) == [1]
    assert pinned(FOUR, chosen) == {}


def server(args: dict[str, Any] | None = None, env: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    record = next(iter(small_study().points.values())).record
    engine = {**record["engine"], **more}
    return {**record, "engine": engine, "server": {**record["server"], "args": args or {}, "env": env or {}}}


def test_the_points_own_environment_comes_before_the_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    use_cards(monkeypatch, *[H100] * 4)
    assert server_gpus(server()).ids == ["GPU-0f000000-1111"]
    assert numbers(server_gpus(server(env={"CUDA_VISIBLE_DEVICES": "2"}))) == [2]
    assert numbers(server_gpus(server(env={"CUDA_VISIBLE_DEVICES": "GPU-3f"}))) == [3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert numbers(server_gpus(server())) == [1]
    assert numbers(server_gpus(server(env={"CUDA_VISIBLE_DEVICES": "2,3"}))) == [2]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "3")
    assert numbers(server_gpus(server())) == [3]
    assert gpu_variables(server()) == {"CUDA_VISIBLE_DEVICES": "GPU-3f000000-1111"}


@pytest.mark.parametrize(
    ("adapter", "args", "expected"),
    [
        ("vllm", {"tensor-parallel-size": 2}, [0, 1]),
        ("vllm", {"tensor_parallel_size": 2}, [0, 1]),
        ("vllm", {"tensor-parallel-size": 2, "data-parallel-size": 2}, [0, 1, 2, 3]),
        ("vllm", {"data-parallel-size": 4, "data-parallel-size-local": 2}, [0, 1]),
        ("vllm", {"pipeline-parallel-size": 3}, [0, 1, 2]),
        ("sglang", {"tp": 2}, [0, 1]),
        ("sglang", {"tp-size": 4, "dp-size": 4, "enable-dp-attention": True}, [0, 1, 2, 3]),
        ("sglang", {"tp-size": 2, "base-gpu-id": 2}, [2, 3]),
        ("sglang", {"tp-size": 2, "gpu-id-step": 2}, [0, 2]),
    ],
)
def test_flags_say_how_many(
    monkeypatch: pytest.MonkeyPatch, adapter: str, args: dict[str, Any], expected: list[int]
) -> None:
    use_cards(monkeypatch, *[H100] * 4)
    assert numbers(server_gpus(server(args, adapter=adapter))) == expected


def test_processes_tell_the_gpu_of_a_mixed_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process().pid
    other = {"name": "NVIDIA L4", "mib": 23034, "sms": 60, "clock": 2040, "processes": [own]}
    use_cards(monkeypatch, H100, other)
    unknown = server_gpus(server())
    assert unknown.devices == ()
    machine = hardware(unknown)
    assert (machine["device"], machine["gpu_name"], machine["gpu_count"]) == ("cuda", None, 0)
    assert "several kinds" in machine["gpu_doubt"]
    assert numbers(server_gpus(server(), [own])) == [1]


def test_several_gpus_together_and_each(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {**H100, "busy": True, "throttle": 0x40, "clock": 1500}
    use_cards(monkeypatch, {**H100, "busy": True}, busy, H100)
    with Nvml(only=["GPU-0f000000-1111", "GPU-1f000000-1111"]) as gpu:
        sample, columns, facts = gpu.sample(), gpu.own_columns, gpu.facts()
    assert sample["gpu_util_fraction"] == 0.9
    assert sample["gpu_power_w"] == 1200
    assert (sample["gpu_sm_clock_mhz"], sample["gpu_throttled"]) == (1500, 1)
    assert (sample["gpu0_sm_clock_mhz"], sample["gpu1_sm_clock_mhz"]) == (1980, 1500)
    assert {name for name in sample if name[3].isdigit()} <= set(columns)
    assert (facts["gpu_count"], facts["gpu_memory_bytes"]) == (2, 2 * 81559 * 2**20)
    assert [one["index"] for one in facts["gpus"]] == [0, 1]


def test_a_counter_that_one_gpu_lacks_is_not_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    use_cards(monkeypatch, H100, {name: value for name, value in H100.items() if name != "mib"})
    with Nvml() as gpu:
        assert "gpu_mem_used_bytes" not in gpu.sample()
        assert "gpu_memory_bytes" not in gpu.facts()
        assert gpu.sample()["gpu_power_w"] == 120


def test_a_slice_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "mib": 9984, "sms": 16, "clock": 1980}
    use_cards(monkeypatch, {**H100, "slices": [part, part]})
    choice = server_gpus(server(env={"CUDA_VISIBLE_DEVICES": "MIG-01a"}))
    machine = hardware(choice)
    assert (machine["gpu_name"], machine["gpu_sms"], machine["gpus"][0]["slice"]) == (part["name"], 16, 1)
    assert machine["gpu_memory_bytes"] == 9984 * 2**20
    with Nvml(only=choice.ids) as gpu:
        assert "gpu_power_w" not in gpu.sample()
        assert gpu.sample()["gpu_mem_used_bytes"] == 10 * 2**20


def test_others_are_looked_for_on_the_servers_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process().pid
    use_cards(monkeypatch, {**H100, "processes": [own, 999999]}, {**H100, "processes": [own]})
    ids = server_gpus(server(env={"CUDA_VISIBLE_DEVICES": "1"})).ids
    with Nvml(only=ids) as gpu:
        assert gpu.foreign_processes({own}) == {"gpu_foreign_processes": 0.0}
    assert len(processes_on_gpu(ids)) == 1
    assert len(processes_on_gpu([])) == 0


@pytest.mark.parametrize("cards", [2, 4])
def test_a_session_measures_the_gpu_of_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: int) -> None:
    use_cards(monkeypatch, H100, {**H100, "busy": True}, *[H100] * (cards - 2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    slow = small_study(batch_cap=4, server={"step-base-ms": 20.0}, env={"CUDA_VISIBLE_DEVICES": "1"}, load=LOAD)
    point = run_session(slow, tmp_path)
    assert point["summary"]["gpu_util_mean_fraction"] == pytest.approx(0.9)
    assert point["summary"]["gpu_power_mean_w"] == pytest.approx(600)
    assert point["hardware"]["gpu_count"] == 1
    assert point["hardware"]["gpus"][0]["index"] == 1
    assert "gpus" not in point


def test_a_session_on_two_gpus_tells_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cards(monkeypatch, H100, {**H100, "busy": True}, H100)
    flags = {"step-base-ms": 20.0, "tensor-parallel-size": 2}
    point = run_session(small_study(batch_cap=4, server=flags, load=LOAD), tmp_path)
    assert point["status"] == "ok", point["error"]
    assert point["hardware"]["gpu_count"] == 2
    assert point["summary"]["gpu_power_mean_w"] == pytest.approx(660)
    assert [one["power_mean_w"] for one in point["gpus"]] == pytest.approx([60, 600])


def test_gpus_of_a_window_and_of_counters() -> None:
    rows = [{"time_s": 0.0, "gpu0_power_w": 5.0, "gpu1_power_w": 7.0}, {"time_s": 1.0, "gpu1_power_w": 9.0}]
    assert [one["power_mean_w"] for one in by_gpu(rows, 2.0)] == [5.0, 8.0]
    assert by_gpu([{"time_s": 0.0, "gpu_power_w": 5.0}], 1.0) == []
    one = {"time_monotonic_s": 1.0, "dram_fraction": 0.4, "power_w": 10.0, "sm_clock_mhz": 900.0}
    other = {"time_monotonic_s": 1.1, "dram_fraction": 0.6, "power_w": 20.0, "sm_clock_mhz": 800.0}
    expected = {"time_monotonic_s": 1.1, "dram_fraction": 0.5, "power_w": 30.0, "sm_clock_mhz": 800.0}
    assert together([one, other]) == pytest.approx(expected)
