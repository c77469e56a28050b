"""Table IV, the claims, and the figures of the study, from made-up tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from memgap.tables import tab04
from memgap.tables.claim import FAILS, HOLDS, SIZE, UNKNOWN
from memgap.tables.claims import Study, claims_table
from memgap.tables.kernels import COLUMNS as KERNEL_COLUMNS
from memgap.tables.points import as_table
from tests.support.drawing import draw, of_sweep


def row(cap: int, tok_s: float, replicas: int = 1, mps: str = "no", **changes: Any) -> dict[str, Any]:
    """Return a made-up row of a sweep's table."""
    return {
        "sweep": "s",
        "model": "opt-1.3b",
        "engine": "vllm",
        "engine_version": "1",
        "cap_side": "client",
        "dataset": "out130",
        "batch_cap": cap,
        "replicas": replicas,
        "mps": mps,
        "repeat": 0,
        "requests": 100,
        "status": "ok",
        "verdict": "valid",
        "flags": "",
        "server_args": "{}",
        "total_throughput_tok_s": tok_s,
        "itl_mean_ms": 1.0 + cap / 100,
        "ttft_mean_ms": 10.0,
        "e2e_mean_ms": 500.0,
        "kv_cache_usage_max_fraction": cap / 1000,
        "kv_pool_bytes": 2.0**36,
        "gpu_util_mean_fraction": 0.99,
        "preemptions": 0.0,
        "output_tokens": 13000.0,
        "requests_completed": 100.0,
        **changes,
    }


def online() -> pd.DataFrame:
    """Return one server's sweep: 512 is MAX, 1024 preempts."""
    preempted = row(1024, 27_500, flags="preempted", verdict="suspect")
    return as_table([row(1, 1000), row(32, 10_000), row(96, 22_000), row(256, 26_500), row(512, 27_000), preempted])


def replication(best: float) -> pd.DataFrame:
    """Return a sweep of replicas whose best throughput is given."""
    unchunked = '{"enable-chunked-prefill":false}'
    return as_table(
        [
            row(96, 22_000),
            row(96, 20_000, server_args=unchunked),
            row(96, 19_000, 2),
            row(96, best, 2, "yes"),
            row(96, 21_000, 2, "yes", server_args=unchunked),
            row(96, 1.0, 4, "yes", status="crash"),
        ]
    )


ADVICE = {
    "opt-1.3b": {
        "b_opt": 96,
        "advice": "Run with a batch cap of 96.",
        "rule": {"latency": "itl_mean_ms", "slo_ms": 5.0, "epsilon": 0.1},
        "candidates": [],
        "memory": {
            "weights_bytes": 2.6e9,
            "kv_with_margin_bytes": 1e10,
            "other_bytes": 1e9,
            "kv_freed_bytes": 9e10,
            "device_memory_bytes": 1.5e11,
        },
    }
}


def test_each_row_is_compared_with_the_same_configuration_and_with_max() -> None:
    found = tab04.table(replication(24_000), online()).set_index(["replicas", "mps", "chunked_prefill"])
    assert len(found) == 5, "the crashed point has no row"
    two = found.loc[(2, "yes", "yes")]
    assert two["throughput_ktok_s"] == 24.0
    assert two["gain_over_same_cap_fraction"] == pytest.approx(24 / 22 - 1)
    assert two["gain_over_max_fraction"] == pytest.approx(24 / 27 - 1)
    assert two["max_cap"] == 512, "a preempted cap is no MAX"
    assert found.loc[(2, "yes", "no")]["gain_over_same_cap_fraction"] == pytest.approx(21 / 20 - 1)
    assert two["e2e_mean_s"] == 0.5


@pytest.mark.parametrize(
    ("best", "verdict"), [(24_000, FAILS), (36_100, HOLDS), (29_000, SIZE)], ids=["loses", "as published", "smaller"]
)
def test_the_claim_of_replication_is_judged_by_what_was_measured(best: float, verdict: str) -> None:
    found = claims_table(Study(online(), replication(best), ADVICE)).set_index("claim")
    claim = found.loc["Replicas under MPS beat one server at MAX"]
    assert claim["verdict"] == verdict
    assert claim["measured"] == pytest.approx(best / 27_000 - 1)
    assert "MAX = 512" in claim["because"]


def test_claims_about_one_server() -> None:
    found = claims_table(Study(online(), replication(24_000), ADVICE)).set_index("claim")
    assert found.loc["Batching multiplies throughput over batch 1", "measured"] == pytest.approx(27.0)
    assert found.loc["B_opt keeps most of the best throughput", "measured"] == pytest.approx(22 / 27)
    assert found.loc["B_opt frees memory of the card", "measured"] == pytest.approx(0.6)
    plateau = found.loc["Throughput reaches a plateau below MAX: what the last doubling of the cap adds"]
    assert plateau["measured"] == pytest.approx(27 / 26.5 - 1)
    assert plateau["verdict"] == HOLDS


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.02, HOLDS), (0.8, FAILS), (None, FAILS)], ids=["as predicted", "slower", "did not serve"]
)
def test_the_advised_server_is_judged_where_it_was_measured(ratio: float | None, verdict: str) -> None:
    claim = "The advised server has the predicted throughput (the paper starts none)"
    compared = {} if ratio is None else {"predicted_and_measured": {"total_throughput_tok_s": {"ratio": ratio}}}
    verified = {"opt-1.3b": {"holds": verdict == HOLDS, "sentence": "Run as advised.", **compared}}
    found = claims_table(Study(online(), replication(24_000), ADVICE, verified)).set_index("claim")
    assert found.loc[claim, "verdict"] == verdict
    assert found.loc[claim, "because"] == "Run as advised."
    unmeasured = {"opt-1.3b": {"holds": None, "sentence": "Not measured."}}
    assert claim not in set(claims_table(Study(online(), replication(24_000), ADVICE, unmeasured))["claim"])


def test_what_was_not_measured_says_so() -> None:
    found = claims_table(Study(online(), as_table([]), {})).set_index("claim")
    assert found.loc["Replicas under MPS beat one server at MAX", "verdict"] == UNKNOWN
    assert found.loc["B_opt frees memory of the card", "verdict"] == UNKNOWN


def test_figure_11_draws_every_part_and_names_what_is_freed() -> None:
    figure, data = draw("fig11", of_sweep(online(), ADVICE))
    assert set(data["part"]) == {"weights_bytes", "kv_with_margin_bytes", "other_bytes", "kv_freed_bytes"}
    assert data.set_index("part").loc["kv_freed_bytes", "share_fraction"] == pytest.approx(0.6)
    assert any("60% freed" in text.get_text() for text in figure.axes[0].texts)


def test_figure_11_without_a_gpu_says_what_it_knows() -> None:
    on_cpu = {"kv_with_margin_bytes": 1e8, "kv_freed_bytes": 2e8, "device_memory_bytes": None, "weights_bytes": None}
    figure, data = draw("fig11", of_sweep(online(), {"opt-1.3b": {**ADVICE["opt-1.3b"], "memory": on_cpu}}))
    assert len(data) == 2
    assert "CPU: pool only" in figure.axes[0].get_xticklabels()[0].get_text()


def test_figure_11_says_where_nothing_was_advised_or_known() -> None:
    nothing = {**ADVICE["opt-1.3b"], "b_opt": None, "memory": {}}
    unknown = {**ADVICE["opt-1.3b"], "memory": {"kv_with_margin_bytes": None}}
    figure, data = draw("fig11", of_sweep(online(), {**ADVICE, "none": nothing, "unknown": unknown}))
    assert set(data["model"]) == {"opt-1.3b"}
    assert {text.get_text() for text in figure.axes[0].texts} >= {"nothing advised: no cap fits", "memory not known"}


def test_figure_11_tells_a_gpu_of_unknown_memory_from_a_cpu() -> None:
    memory = {"kv_with_margin_bytes": 1e8, "kv_freed_bytes": 2e8, "device_memory_bytes": None, "weights_bytes": 1e9}
    on_gpu = online().assign(device="cuda")
    figure, _ = draw("fig11", of_sweep(on_gpu, {"opt-1.3b": {**ADVICE["opt-1.3b"], "memory": memory}}))
    tick = figure.axes[0].get_xticklabels()[0].get_text()
    assert "CPU" not in tick
    assert "(unknown: other, card's size)" in tick


def test_figure_11_names_the_paper_where_it_lacks_the_first_model(tmp_path: Path) -> None:
    (tmp_path / "fig11.csv").write_text("model,component,memory_gb\nopt-1.3b,model_weights,3.0\n")
    advice = {"other-model": ADVICE["opt-1.3b"], **ADVICE}
    figure, _ = draw("fig11", of_sweep(online(), advice, paper_reference=tmp_path))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()].count("unfilled: paper (H100, 64 GB)") == 1


def of_length(tokens: int, cap: int, tok_s: float, **changes: Any) -> dict[str, Any]:
    """Return a row of the dataset whose requests all get so many tokens."""
    return row(cap, tok_s, **{"dataset": f"out{tokens}", "output_tokens": 100.0 * tokens, **changes})


def legend_of(figure: Figure) -> list[str]:
    """Return what the legend above the panels names."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_figure_12_has_a_series_for_each_dataset() -> None:
    longer = [of_length(520, cap, 5000.0 + cap) for cap in (8, 32)]
    preempted = row(64, 9000, flags="preempted")
    figure, data = draw("fig12", of_sweep(as_table([*longer, row(8, 9000), row(32, 20_000), preempted])))
    assert list(dict.fromkeys(data["dataset"])) == ["out130", "out520"]
    assert sorted(set(data["output_tokens_mean"])) == [130.0, 520.0]
    assert legend_of(figure) == ["130 tokens", "520 tokens", "preempted"]
    assert figure.axes[0].get_legend() is None


def test_figure_12_draws_any_number_of_output_lengths() -> None:
    lengths = [10 * number for number in range(1, 14)]
    figure, data = draw("fig12", of_sweep(as_table([of_length(n, cap, 100.0 * n) for n in lengths for cap in (1, 2)])))
    assert data["dataset"].nunique() == 13
    assert legend_of(figure) == [f"{length} tokens" for length in lengths]


def test_figure_12_keeps_a_dataset_together_whose_caps_differ_in_length() -> None:
    drifting = [row(cap, 1000.0 * cap, dataset="chat", output_tokens=13_000.0 + 100 * cap) for cap in (1, 2, 4)]
    _, data = draw("fig12", of_sweep(as_table(drifting)))
    assert len(set(data["output_tokens_mean"])) == 1


def test_figure_12_tells_datasets_of_one_length_and_sides_of_one_cap_apart() -> None:
    rows = [
        row(8, 9000),
        row(8, 8000, dataset="chat", output_tokens=13_020.0),
        row(8, 7000, dataset="chat", output_tokens=13_020.0, cap_side="server"),
    ]
    figure, data = draw("fig12", of_sweep(as_table(rows)))
    assert list(data["total_throughput_tok_s"]) == [9000.0, 8000.0, 7000.0]
    assert legend_of(figure) == [
        "130 tokens (out130), cap on the client",
        "130 tokens (chat), cap on the client",
        "130 tokens (chat), cap on the server",
    ]


def test_figure_12_has_bars_over_repeats_and_names_datasets_in_its_notes() -> None:
    rows = [row(8, 9000), row(8, 9100, repeat=1), of_length(520, 8, 1.0, status="oom")]
    figure, data = draw("fig12", of_sweep(as_table(rows)))
    assert list(data["repeats"]) == [2]
    assert data["total_throughput_tok_s_low"].iloc[0] < 9050.0 < data["total_throughput_tok_s_high"].iloc[0]
    footer = figure._supxlabel.get_text()  # type: ignore[attr-defined]
    assert "2 repeats, Student t, 95 %" in footer
    assert "not drawn: 1 oom (opt-1.3b out520 cap 8)" in " ".join(footer.split())


def kernels(source: str = "kernels") -> pd.DataFrame:
    """Return a made-up table of kernels of two replicas that alternate every 0.5 ms, busy half of the time each."""
    starts = np.arange(0.0, 0.06, 0.001)
    tables = [
        pd.DataFrame({"replica": replica, "start_s": starts + shift, "duration_s": 0.0005})
        for replica, shift in ((1, 0.0), (2, 0.0005))
    ]
    fixed = {"sweep": "s", "experiment": "two", "key": "k", "model": "m", "batch_cap": 96, "replicas": 2, "mps": "yes"}
    return pd.concat(tables).assign(**fixed, source=source, busy_fraction=0.5, stream=7, name="x")[list(KERNEL_COLUMNS)]


def test_figure_13_tells_busy_and_overlap() -> None:
    table = as_table([row(96, 20_000, 2, "yes", verdict="invalid", flags="profiled")])
    figure, data = draw("fig13", of_sweep(table, kernels=kernels()))
    title = figure.axes[0].get_title(loc="left")
    assert "2 replicas under MPS" in title
    assert "GPU busy 100.0%" in title
    assert "at once 0.0%" in title
    assert data["end_ms"].max() <= 12.0 + 1e-6
    footer = figure._supxlabel.get_text()  # type: ignore[attr-defined]
    assert "not drawn" not in footer, "profiled points are what this figure is about"


def test_figure_13_without_a_profiler_says_so() -> None:
    table = as_table([row(96, 20_000, 2, "yes")])
    figure, _ = draw("fig13", of_sweep(table, kernels=kernels("nvml")))
    assert "by NVML" in figure.axes[0].get_title(loc="left")
