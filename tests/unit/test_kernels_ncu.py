"""Nsight Compute: its command line, its CSV, and FLOP and peaks after its counters."""

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.errors import UserError
from memgap.profiling.metrics import (
    COUNTERS,
    METRIC_SETS,
    counters,
    gemm_count_ratio,
    metrics_of,
    tensor_flop,
    unit_scale,
)
from memgap.profiling.ncu import (
    IDENTITY,
    NoCounterPermission,
    ncu_command,
    number,
    parse_ncu,
    range_names,
    read_ncu,
)

H200 = Path(__file__).parent / "data/ncu_raw_h200.csv"
PUSH_POP = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
NONE = "none:none:none:none:none:none"


def export(metrics: dict[str, tuple[str, list[str]]], ranges: str = "", kernel: str = "nvjet_a") -> str:
    """Return the text of an export with one row a value; metrics map a name to its unit and values."""
    rows = max((len(values) for _, values in metrics.values()), default=1)
    header = ["ID", "Process ID", PUSH_POP, "Kernel Name", "Stream", "Block Size", "Grid Size", *metrics]
    lines = [header, ["", "", "", "", "", "", "", *(unit for unit, _ in metrics.values())]]
    for row in range(rows):
        found = [values[row] for _, values in metrics.values()]
        lines.append([str(row), "7", ranges, kernel, "7", "(128, 1, 1)", "(4, 1, 1)", *found])
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(lines)
    return text.getvalue()


def test_an_export_of_an_h200() -> None:
    found = read_ncu(H200)
    table = found.table
    assert list(table.columns) == [*IDENTITY, *COUNTERS]
    assert table["kernel_class"].tolist() == ["kv_write", "kv_write"]
    assert table["instance"].tolist() == [0, 1]
    assert table["ranges"].tolist() == [["Step10"], ["Step10"]]
    first = table.iloc[0]
    assert (first["grid"], first["block"], first["stream"]) == ("(64, 1, 1)", "(512, 1, 1)", 7)
    assert first["duration_s"] == pytest.approx(4.992e-6)
    assert (first["dram_read_bytes"], first["dram_write_bytes"]) == (552960, 0)
    assert first["dram_fraction"] == pytest.approx(0.0231)
    assert first["warps_in_flight_fraction"] == pytest.approx(0.2422)
    assert first["l2_hit_fraction"] == pytest.approx(0.5469)
    assert first["sm_active_fraction"] == pytest.approx(3092.25 / 10679.42)
    assert first["stall_long_scoreboard_cycles"] == pytest.approx(11.91)
    assert first["warp_latency_cycles"] == pytest.approx(21.44)
    assert first["flop_fp32"] == first["flop_fp16"] == first["flop_tensor"] == 0
    assert any(message.startswith("WARNING: Unable to access") for message in found.messages)


def test_peaks_of_an_h200_are_those_of_its_datasheet() -> None:
    row = read_ncu(H200).table.iloc[0]
    assert row["sm_clock_hz"] == pytest.approx(2.139e9, rel=1e-3)
    at_highest = 1.98e9
    assert row["peak_flop_tensor_fp16_s"] / at_highest * 1.83e9 == pytest.approx(989e12, rel=2e-3)
    assert row["peak_flop_fp32_s"] == pytest.approx(66.9e12, rel=2e-3)
    assert row["peak_dram_bytes_s"] == pytest.approx(4.8e12, rel=5e-3)


def test_flop_of_instructions_and_tensor_cores() -> None:
    name = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
    counts = {
        name.format(kind + op): value for kind in "fhd" for op, value in (("add", 1.0), ("mul", 10.0), ("fma", 100.0))
    }
    found = counters(counts)
    assert (found["flop_fp32"], found["flop_fp16"], found["flop_fp64"]) == (211, 422, 211)
    del counts[name.format("fmul")]
    assert math.isnan(counters(counts)["flop_fp32"])
    a_cycle = {name.format("f" + op) + ".per_cycle_elapsed": 2.0 for op in ("add", "mul", "fma")}
    assert counters({**a_cycle, "smsp__cycles_elapsed.avg": 50.0})["flop_fp32"] == 400


def test_tensor_operations_are_counted_once_whatever_the_export_splits() -> None:
    op = "sm__ops_path_tensor_src_"
    assert math.isnan(tensor_flop({}))
    split = {f"{op}fp16_dst_fp32.sum": 3.0, f"{op}fp16_dst_fp16.sum": 4.0, f"{op}bf16_dst_fp32.sum": 5.0}
    assert tensor_flop(split) == 12
    assert tensor_flop({**split, f"{op}fp16.sum": 7.0, f"{op}fp16_dst_fp32_sparsity_off.sum": 3.0}) == 12
    assert tensor_flop({f"{op}fp8_sparsity_off.sum": 1.0, f"{op}fp8_sparsity_on.sum": 2.0}) == 3
    assert tensor_flop({f"{op}int8.sum": 9.0, "sm__ops_path_tensor_op_imma_src_int8.sum": 9.0}) == 9


def test_a_count_of_a_gemm_tells_how_it_counts() -> None:
    assert gemm_count_ratio(2.0 * 256**3, 256, 256, 256) == 1.0
    assert gemm_count_ratio(256.0**3, 256, 256, 256) == 0.5
    with pytest.raises(ValueError, match="no side below 1"):
        gemm_count_ratio(1.0, 0, 1, 1)


def test_one_metric_in_any_unit_and_with_separators() -> None:
    for unit, said in (("byte", "1,048,576"), ("Kbyte", "1,048.576"), ("Mbyte", "1.048576"), ("Gbyte", "0.001048576")):
        assert parse_ncu(export({"dram__bytes_read.sum": (unit, [said])})).table["dram_read_bytes"][0] == pytest.approx(
            2**20
        )
    for unit, said in (
        ("ns", "5,000"),
        ("nsecond", "5000"),
        ("us", "5"),
        ("usecond", "5.0"),
        ("ms", "0.005"),
        ("s", "5e-6"),
    ):
        assert parse_ncu(export({"gpu__time_duration.sum": (unit, [said])})).table["duration_s"][0] == pytest.approx(
            5e-6
        )
    for unit, said in (
        ("hz", "1,980,000,000"),
        ("Mhz", "1,980"),
        ("Ghz", "1.98"),
        ("cycle/nsecond", "1.98"),
        ("cycle/s", "1.98e9"),
    ):
        found = parse_ncu(export({"sm__cycles_elapsed.avg.per_second": (unit, [said])})).table
        assert found["sm_clock_hz"][0] == pytest.approx(1.98e9)
    assert math.isnan(unit_scale("fortnight"))
    assert math.isnan(parse_ncu(export({"gpu__time_duration.sum": ("fortnight", ["5"])})).table["duration_s"][0])


def test_no_number_is_no_value() -> None:
    assert [number(cell) for cell in ("1,571,079", " 0.5", "-3", "1e3")] == [1571079, 0.5, -3, 1000]
    assert all(math.isnan(number(cell)) for cell in ("", "n/a", "nan", "No-CC", "1 2", ","))


def test_ranges_nested_in_one_cell() -> None:
    cell = f'3686  "<default domain>:Decode:{NONE}" "<default domain>:DecodeStep12:{NONE}" "mine:a:b:{NONE}" '
    assert range_names(cell) == ["Decode", "DecodeStep12", "a:b"]
    assert range_names("") == range_names("3686") == range_names('"odd"') == []
    table = parse_ncu(export({"gpu__time_duration.sum": ("ns", ["1", "2"])}, ranges=cell)).table
    assert table["phase"].tolist() == ["decode", "decode"]
    assert table["step"].tolist() == [12, 12]
    assert table["instance"].tolist() == [0, 1]


def test_an_export_of_few_metrics_has_every_column() -> None:
    table = parse_ncu("noise\n" + export({"gpu__time_duration.sum": ("ns", ["7"])}) + "more noise, with commas\n").table
    assert list(table.columns) == [*IDENTITY, *COUNTERS]
    assert table[list(COUNTERS)].notna().sum(axis=1).tolist() == [1]


def test_a_stall_reason_of_another_gpu_gets_a_column() -> None:
    metric = "smsp__average_warps_issue_stalled_new_reason_per_issue_active.ratio"
    assert parse_ncu(export({metric: ("inst", ["1.5"])})).table["stall_new_reason_cycles"].tolist() == [1.5]


def test_refused_counters_are_an_error_of_their_own() -> None:
    refused = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
    with pytest.raises(NoCounterPermission, match="CAP_SYS_ADMIN"):
        parse_ncu(f"==PROF== Connected to process 7\n{refused}\n==WARNING== No kernels were profiled.\n")


def test_no_kernels_is_an_empty_table_with_a_reason() -> None:
    found = parse_ncu("==PROF== Connected\n==WARNING== No kernels were profiled.\nAvailable Kernels:\n1. a\n")
    assert found.table.empty and list(found.table.columns) == [*IDENTITY, *COUNTERS]
    assert "no launch matched" in found.reason
    died = parse_ncu("==ERROR== The application returned an error code (1).\n==WARNING== No kernels were profiled.\n")
    assert "error code (1)" in died.reason


BROKEN = {
    "empty": ("", "no table"),
    "only a log": ("INFO starting\n==PROF== Connected\n", "no table"),
    "an error of ncu": ("==ERROR== Failed to find metric foo\n", "Failed to find metric foo"),
    "other columns": ('"ID","Metric Name"\n"0","x"\n', "Kernel Name"),
    "header only": (export({}).splitlines()[0], "cut off"),
    "header and units": ("\n".join(export({"a__b": ("%", ["1"])}).splitlines()[:2]), "cut off"),
    "a row cut off": (export({"a__b": ("%", ["123"])})[:-9], "cut off"),
    "no name": (export({}, kernel=" "), "1 rows are broken"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_export_is_told_in_one_sentence(kind: str) -> None:
    text, said = BROKEN[kind]
    with pytest.raises(UserError, match=said) as caught:
        parse_ncu(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", ['"7","1', '"7","1","2"', '"7"'], ids=["a quote", "too short", "an id"])
def test_a_broken_row_is_left_out_and_counted(broken: str) -> None:
    whole = export({"a__b": ("%", ["1"])})
    found = parse_ncu(f"{whole.rstrip()}\n{broken}\n")
    assert (len(found.table), found.left_out) == (1, 1)
    assert (len(parse_ncu(whole).table), parse_ncu(whole).left_out) == (1, 0)


def test_binary_and_absent_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"NVR\0\1\2")
    with pytest.raises(UserError, match="binary data"):
        read_ncu(tmp_path / "a")
    with pytest.raises(UserError, match="cannot be read"):
        read_ncu(tmp_path / "none")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_or_scrambled_export_is_read_or_told(data: st.DataObject) -> None:
    text = H200.read_text()
    cut = data.draw(st.integers(0, len(text)))
    junk = data.draw(st.text(max_size=20))
    try:
        found = parse_ncu(text[:cut] + junk)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(found.table) in (1, 2)


def test_the_command_line() -> None:
    arguments = ncu_command(
        ["python", "x.py"],
        metrics=metrics_of("light"),
        ranges=["DecodeStep0", "DecodeStep335/"],
        log_file=Path("out.csv"),
        kernel="FlashAttn",
        launches=5,
    )
    assert arguments[0] == "ncu" and arguments[-2:] == ["python", "x.py"]
    assert [arguments[at + 1] for at, word in enumerate(arguments) if word == "--nvtx-include"] == [
        "DecodeStep0/",
        "DecodeStep335/",
    ]
    for option, value in {
        "--target-processes": "all",
        "--clock-control": "none",
        "--page": "raw",
        "--print-units": "base",
        "--kernel-name-base": "demangled",
        "--kernel-name": "regex:FlashAttn",
        "--launch-count": "5",
        "--log-file": "out.csv",
        "--metrics": ",".join(METRIC_SETS["light"]),
    }.items():
        assert arguments[arguments.index(option) + 1] == value
    assert "--nvtx" not in ncu_command(["a"], metrics=["b"])


def test_sets_join_without_doubles() -> None:
    both = metrics_of("light", "memory")
    assert len(both) == len(set(both))
    assert set(both) == {*METRIC_SETS["light"], *METRIC_SETS["memory"]}
    with pytest.raises(KeyError):
        metrics_of("none such")
