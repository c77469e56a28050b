"""Figures of an offline study show what its tables say, from made-up tables."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from memgap.errors import UserError
from memgap.figures.step_timeline import short_name
from memgap.tables.device_metrics import phase_metrics
from memgap.tables.inputs import Inputs
from memgap.tables.offline_points import main_points
from memgap.tables.offline_study import READ, OfflineTables, offline_of
from memgap.tables.points import as_table
from tests.support.drawing import draw, of_study, reading
from tests.support.figures import texts
from tests.support.offline_tables import ATTENTION, GEMM, counter_row, offline_study, point, times


def drawn(name: str, tables: OfflineTables) -> pd.DataFrame:
    """Return what a figure of the tables holds."""
    return draw(name, of_study(tables))[1]


@pytest.mark.parametrize("name", reading("study.offline"))
def test_every_figure_says_in_place_that_nothing_was_measured(name: str) -> None:
    figure, data = draw(name, of_study())
    assert data.empty
    assert "no point of this study" in texts(figure)


@pytest.mark.parametrize("name", reading("study.offline"))
def test_every_figure_names_the_points_that_failed(name: str) -> None:
    figure, data = draw(name, of_study(offline_study()))
    assert not data.empty
    assert "not drawn: llama-2-7b batch 1024 (oom)" in texts(figure)
    assert "vllm 1; TEST GPU" in texts(figure)


def test_the_roofline_counts_tensor_cores_and_draws_every_batch() -> None:
    data = drawn("fig01", offline_study())
    own = data[(data["model"] == "opt-1.3b") & (data["kernel_class"] == "attention")]
    assert list(own["batch"]) == [1.0, 8.0, 64.0, 512.0]
    assert list(own["intensity_flop_byte"]) == pytest.approx([1.1 / 1.02] * 4), "reads and writes, all kinds of FLOP"
    assert list(own["analytic_intensity_flop_byte"]) == pytest.approx([0.998] * 4, abs=0.001)
    matmul = data[(data["model"] == "opt-1.3b") & (data["kernel_class"] == "matmul")].set_index("batch")
    assert matmul.loc[1.0, "analytic_intensity_flop_byte"] == pytest.approx(1.0, abs=0.01)
    assert matmul.loc[512.0, "analytic_intensity_flop_byte"] > 300
    figure, _ = draw("fig01", of_study(offline_study()))
    assert "FP16 tensor, dense: 989 TFLOP/s" in texts(figure)
    assert "FP32: 67 TFLOP/s" in texts(figure)
    assert "B 1" in texts(figure)
    assert "B 512" in texts(figure)


def test_a_model_out_of_the_registry_has_no_analytic_intensity() -> None:
    rows = [{**counter_row("opt-1.3b", 1.0, "attention", 0), "model": "mine"}]
    data = drawn("fig01", OfflineTables(counters=READ["counters"].checked(pd.DataFrame(rows), "c")))
    assert data["analytic_intensity_flop_byte"].isna().all()
    assert data["intensity_flop_byte"].notna().all()


def test_slowdown_is_over_the_smallest_batch() -> None:
    data = drawn("fig04", offline_study())
    own = data[data["model"] == "opt-1.3b"].reset_index(drop=True)
    total = own["prefill_s"] + own["decode_s"]
    assert list(own["slowdown_ratio"]) == pytest.approx(list(total / total[0]))
    assert list(own["batch"]) == [1.0, 8.0, 64.0, 512.0]


def test_repeats_are_a_mean_and_another_setting_stays_out() -> None:
    rows = [
        point("opt-1.3b", 1.0, prefill_s=1.0),
        point("opt-1.3b", 1.0, prefill_s=3.0, repeat=1),
        point("opt-1.3b", 8.0, prefill_s=1.0),
        point("opt-1.3b", 1.0, mode="eager"),
        point("opt-1.3b", 8.0, profiler="torch", prefill_s=99.0),
    ]
    tables = OfflineTables(points=READ["offline"].checked(pd.DataFrame(rows), "o"))
    data = drawn("fig04", tables)
    assert list(data["prefill_s"]) == [2.0, 1.0]
    assert list(data["repeats"]) == [2, 1]
    assert set(main_points(tables)["mode"]) == {"graphs"}


def test_device_metrics_take_the_best_source_and_say_which() -> None:
    full = drawn("fig05", offline_study())
    bar = full[(full["record"] == "bar") & (full["model"] == "opt-1.3b") & (full["metric"] == "dram_read")]
    assert set(bar["source"]) == {"nsys, sampled over time; ncu counters of single kernels: tensor cores"}
    assert set(bar[bar["statistic"] == "max"]["value_fraction"]) == {0.8}
    other = full[(full["record"] == "bar") & (full["model"] == "llama-2-7b") & (full["batch"] == 512)]
    assert set(other["source"]) == {"ncu counters of single kernels"}
    ms = times("llama-2-7b", 512.0)
    kinds = ("matmul", "attention", "kv_write", "norm", "sampling", "unclassified")
    busy = sum(ms[kind] for kind in kinds) / ms["wall"]
    read = (0.92 * ms["attention"] + 0.8 * ms["matmul"]) / (ms["attention"] + ms["matmul"])
    mean = other[(other["metric"] == "dram_read") & (other["statistic"] == "mean")]["value_fraction"].iloc[0]
    assert mean == pytest.approx(read * busy, rel=1e-6), "weighted by duration, times the share with a kernel"


def test_of_nvmls_samples_only_dram_is_believed_and_ncu_gives_the_rest() -> None:
    tables = offline_study()
    found, source = phase_metrics(
        dataclasses.replace(
            tables, gpu=tables.gpu.assign(profiler="gpm", metric=tables.gpu["metric"].replace("dram_read", "dram"))
        ),
        tables.points[(tables.points["model"] == "opt-1.3b") & (tables.points["batch"] == 512)],
        "decode",
    )
    assert source.startswith("gpm, sampled over time; ncu counters of single kernels: ")
    assert "dram" in found and "dram_read" not in found, "DRAM has one source"
    assert found["warps"][1] == tables.counters["warps_in_flight_fraction"].max()


def test_nvmls_dram_counter_is_read_and_write() -> None:
    metrics = {"decode_dram_mean_fraction": 0.5, "decode_dram_max_fraction": 0.9, "decode_warps_mean_fraction": 0.1}
    tables = OfflineTables(points=READ["offline"].checked(pd.DataFrame([point("opt-1.3b", 1.0, **metrics)]), "o"))
    figure, data = draw("fig05", of_study(tables))
    assert list(data[data["metric"] == "dram"]["value_fraction"]) == [0.5, 0.9]
    assert "read and write together" in texts(figure)
    assert "NVML GPM" in texts(figure)


def test_shares_of_a_step_sum_to_one_with_the_idle_gpu_as_cpu_time() -> None:
    data = drawn("fig06", offline_study())
    sums = data.groupby(["model", "batch"])["share_fraction"].sum()
    assert list(sums) == pytest.approx([1.0] * 8)
    ms = times("opt-1.3b", 1.0)
    own = data[(data["model"] == "opt-1.3b") & (data["batch"] == 1)].set_index("part")["share_fraction"]
    assert own["attention"] == pytest.approx((ms["attention"] + ms["kv_write"]) / ms["wall"])
    busy = sum(ms[kind] for kind in ("matmul", "attention", "kv_write", "norm", "sampling", "unclassified"))
    assert own["cpu"] == pytest.approx(1 - busy / ms["wall"])
    figure, _ = draw("fig06", of_study(offline_study()))
    assert "unclassified kernels take at most 0.7% of a step (opt-1.3b, batch 1)" in texts(figure)


def test_without_an_unprofiled_step_shares_are_of_the_busy_time() -> None:
    tables = offline_study()
    alone = dataclasses.replace(tables, classes=tables.classes.assign(wall_ms_per_step=float("nan")))
    figure, data = draw("fig06", of_study(alone))
    assert data[data["part"] == "cpu"]["share_fraction"].isna().all()
    assert set(data["of"]) == {"time with a kernel"}
    assert "shares of the time with a kernel" in texts(figure)


def test_kernels_of_a_step_get_their_counters_by_name_and_order() -> None:
    tables = offline_study()
    rising = tables.counters.assign(dram_read_fraction=tables.counters["instance"] / 100)
    data = drawn("fig07", dataclasses.replace(tables, counters=rising))
    assert set(data["model"]) == {"llama-2-7b"}
    assert set(data["batch"]) == {1.0, 512.0}
    attention = data[(data["batch"] == 1) & (data["kernel_class"] == "attention")]
    assert list(attention["dram_read_fraction"]) == pytest.approx([0.10, 0.11, 0.12, 0.13]), "the layers in the middle"
    assert data[data["kernel_class"] == "norm"]["dram_read_fraction"].isna().all()
    assert data["start_ms"].min() == 0.0
    assert (data["end_ms"] > data["start_ms"]).all()


def test_a_timeline_without_counters_is_drawn_alone() -> None:
    figure, data = draw("fig07", of_study(offline_study(counters=False)))
    assert len(data) > 0
    assert "no counters of these kernels" in texts(figure)


def test_short_names_are_without_templates_and_parameters() -> None:
    assert short_name(ATTENTION) == "cutlass::device_kernel"
    assert short_name(GEMM) == GEMM
    assert short_name("void flash::combine(int)") == "flash::combine"


def test_stalls_at_both_ends_with_the_papers_number_beside_the_rest() -> None:
    data = drawn("fig08", offline_study())
    own = data[data["model"] == "opt-1.3b"]
    assert list(dict.fromkeys(own["batch"])) == [1.0, 512.0]
    at_max = own[own["batch_label"] == "max"].set_index("reason")["share_fraction"]
    assert at_max["long_scoreboard"] == pytest.approx(0.5)
    assert at_max.sum() == pytest.approx(1.0)
    assert at_max["wait"] == pytest.approx(0.2)
    assert list(own["kernels"].unique()) == [24], "kernels of other lengths are not part of it"


def test_lengths_are_varied_one_at_a_time_in_the_last_step() -> None:
    data = drawn("fig09", offline_study())
    prompts = data[data["varied"] == "prompt_length"]
    assert sorted(set(prompts["prompt_tokens"])) == [100.0, 400.0, 1600.0]
    assert set(prompts["output_tokens"]) == {100.0}
    outputs = data[data["varied"] == "output_length"]
    assert sorted(set(outputs["output_tokens"])) == [100.0, 400.0, 1600.0]
    assert set(data["kernels"]) == {1}, "the first step is not part of it"


def test_the_parts_of_a_step_sum_to_its_wall_time() -> None:
    data = drawn("timeshare", offline_study())
    sums = data.groupby(["model", "batch", "detokenize"])[["ms", "share_fraction"]].sum()
    walls = data.groupby(["model", "batch", "detokenize"])["wall_ms"].first()
    assert list(sums["ms"]) == pytest.approx(list(walls))
    assert list(sums["share_fraction"]) == pytest.approx([1.0] * len(sums))
    ms = times("opt-1.3b", 512.0)
    own = data[(data["model"] == "opt-1.3b") & (data["batch"] == 512)].set_index(["detokenize", "part"])["ms"]
    assert own["no", "weight_reads"] == pytest.approx(ms["matmul"])
    assert own["no", "launch_gaps"] == pytest.approx(ms["gaps"])
    assert own["no", "scheduler"] == pytest.approx(ms["schedule"] + ms["update"])
    assert own["no", "residual"] == pytest.approx(0.02)
    assert own["yes", "detokenizing"] == pytest.approx(512 / 40)
    figure, _ = draw("timeshare", of_study(offline_study()))
    assert "largest residual: 1.3% of the wall time (opt-1.3b batch 1)" in texts(figure)


def test_a_residual_beyond_its_bound_is_an_alert() -> None:
    tables = offline_study()
    longer = dataclasses.replace(tables, points=tables.points.assign(wall_ms=tables.points["wall_ms"] * 1.1))
    figure, _ = draw("timeshare", of_study(longer))
    assert "unexplained; 9 of 9 bars are beyond 3%" in texts(figure)


ONLINE_CLOCKS = {
    "steady_itl_mean_ms": 20.0,
    "steady_mean_running_reqs": 500.0,
    "window_e2e_mean_ms": 4200.0,
    "server_e2e_mean_ms": 4180.0,
    "server_queue_mean_ms": 60.0,
    "server_prefill_mean_ms": 80.0,
    "server_decode_mean_ms": 4000.0,
    "output_tokens": 2000.0,
    "requests_completed": 10,
}


def online_point(**columns: object) -> dict[str, object]:
    server = {"model": "opt-1.3b", "batch_cap": 512, "replicas": 1, "status": "ok", "verdict": "valid", "flags": ""}
    return {**server, **ONLINE_CLOCKS, **columns}


def test_an_online_token_is_cut_by_the_clocks_of_its_request() -> None:
    figure, data = draw("timeshare", of_study(offline_study(), as_table([online_point()])))
    own = data[data["batch_cap"] == 512].set_index("part")["ms"]
    assert dict(own) == pytest.approx({"step": 20.0, "prefill": 0.4, "queue": 0.3, "api_server": 0.2, "client": 0.1})
    assert "API server, IPC and client together are at most 1.4% of an online token" in texts(figure)


def test_an_online_step_stands_beside_the_offline_one_with_as_many_requests() -> None:
    tables = offline_study()
    ours = tables.points[(tables.points["model"] == "opt-1.3b") & (tables.points["batch"] == 512)].iloc[:1]
    pair = [
        ours.assign(batch=batch, wall_ms=wall, async_scheduling="yes", profiler="none")
        for batch, wall in ((400, 12.0), (600, 16.0))
    ]
    tables = dataclasses.replace(tables, points=pd.concat([tables.points, *pair], ignore_index=True))
    rows = [online_point(), online_point(batch_cap=2048, steady_mean_running_reqs=2000.0)]
    data = draw("timeshare", of_study(tables, as_table(rows)))[1]
    own = data[data["batch_cap"] == 512].set_index("part")["ms"]
    assert own["bare_step"] == pytest.approx(14.0), "between the batches that were measured"
    assert own["added"] == pytest.approx(6.0)
    beyond = set(data[data["batch_cap"] == 2048]["part"])
    assert "step" in beyond and "bare_step" not in beyond, "never extrapolated"


def test_online_tokens_that_are_not_drawn_for_want_of_a_steady_part_are_named() -> None:
    unsteady = dict.fromkeys(("steady_itl_mean_ms", "steady_mean_running_reqs"))
    rows = [online_point(), online_point(batch_cap=2048, **unsteady)]
    figure, data = draw("timeshare", of_study(offline_study(), as_table(rows)))
    assert set(data["batch_cap"].dropna()) == {512}
    assert "not drawn for want of a steady part: opt-1.3b cap 2048" in texts(figure)


def test_unprofiled_gpu_time_stays_one_part() -> None:
    data = drawn("timeshare", offline_study(classes=False))
    assert "weight_reads" not in set(data["part"])
    sums = data.groupby(["model", "batch", "detokenize"])["share_fraction"].sum()
    assert list(sums) == pytest.approx([1.0] * len(sums))


def test_wrong_tables_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,model\nk,m\n")
    with pytest.raises(UserError, match="not the classes table of an offline study, the column mode is missing"):
        READ["classes"].read(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"not the gpu table of an offline study \(.*none"):
        READ["gpu"].read(tmp_path / "none.csv")
    offline_study().gpu.astype({"value_fraction": object}).assign(value_fraction="much").to_csv(tmp_path / "g.csv")
    with pytest.raises(UserError, match=r"not the gpu table of an offline study \(Unable to parse"):
        READ["gpu"].read(tmp_path / "g.csv")


def test_tables_are_read_back(tmp_path: Path) -> None:
    tables = offline_study()
    paths = {}
    for kind, table in (("offline", tables.points), ("counters", tables.counters)):
        paths[f"study.{kind}"] = tmp_path / f"{kind}.csv"
        table.drop(columns="batch_cap", errors="ignore").to_csv(paths[f"study.{kind}"], index=False)
    again = offline_of(Inputs(paths))
    assert again.kernels.empty
    pd.testing.assert_frame_equal(drawn("fig04", again), drawn("fig04", tables))
    pd.testing.assert_frame_equal(drawn("fig01", again), drawn("fig01", tables))


PAPER = {
    "fig01": "series,model,batch_size,arithmetic_intensity_flop_per_byte,performance_flop_per_s\n"
    "flash,opt-1.3b,1,1,1e11\n",
    "fig04": "model,batch_size,prefill_time_s,decode_time_s,global_slowdown_x,plotted\nopt-1.3b,8,1,2,3,True\n",
    "fig05": "record_type,model,batch_size,metric,statistic,value_pct\nbar,opt-1.3b,8,dram_read_bandwidth,mean,50\n",
    "fig06": "model,batch_size,time_class,decode_time_share_pct\nopt-1.3b,8,attention,10\n",
    "fig07": "record_type,model,batch_size,name,start_ms,value_pct\ngpu_metric,llama-2-7b,1,dram_read_bandwidth,0,5\n",
    "fig08": "attention_backend,model,batch_label,idle_cycles_pct\nflash,opt-1.3b,max,54\n",
    "fig09": "varied,model,prompt_len_tokens,output_len_tokens,idle_cycles_pct\nprompt_length,opt-1.3b,400,100,20\n",
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_papers_numbers_lie_over_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.csv").write_text(PAPER[name])
    figure, _ = draw(name, of_study(offline_study(), paper=tmp_path))
    assert "paper (H100, 64 GB)" in texts(figure)
