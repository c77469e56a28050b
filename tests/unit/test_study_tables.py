"""Table IV, the claims, and the figures of the study, from made-up tables."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from memgap.collect.table import as_table
from memgap.figures.inputs import FigureInputs
from memgap.figures.plot import draw
from memgap.tables import tab04
from memgap.tables.claim import FAILS, HOLDS, SIZE, UNKNOWN
from memgap.tables.claims import Study, claims_table
from memgap.timeline.table import COLUMNS as KERNEL_COLUMNS


def row(cap: int, tok_s: float, replicas: int = 1, mps: str = "no", **changes: Any) -> dict[str, Any]:
    """Return a made-up row of a sweep's table."""
    return {
        "sweep": "s",
        "model": "opt-1.3b",
        "engine": "vllm",
        "engine_version": "1",
        "cap_side": "client",
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


def test_what_was_not_measured_says_so() -> None:
    found = claims_table(Study(online(), as_table([]), {})).set_index("claim")
    assert found.loc["Replicas under MPS beat one server at MAX", "verdict"] == UNKNOWN
    assert found.loc["B_opt frees memory of the card", "verdict"] == UNKNOWN


def test_figure_11_draws_every_part_and_names_what_is_freed() -> None:
    figure, data = draw("fig11", FigureInputs(online(), ADVICE))
    assert set(data["part"]) == {"weights_bytes", "kv_with_margin_bytes", "other_bytes", "kv_freed_bytes"}
    assert data.set_index("part").loc["kv_freed_bytes", "share_fraction"] == pytest.approx(0.6)
    assert any("60% freed" in text.get_text() for text in figure.axes[0].texts)


def test_figure_11_without_a_gpu_says_what_it_knows() -> None:
    on_cpu = {"kv_with_margin_bytes": 1e8, "kv_freed_bytes": 2e8, "device_memory_bytes": None, "weights_bytes": None}
    figure, data = draw("fig11", FigureInputs(online(), {"opt-1.3b": {**ADVICE["opt-1.3b"], "memory": on_cpu}}))
    assert len(data) == 2
    assert "CPU: pool only" in figure.axes[0].get_xticklabels()[0].get_text()


def test_figure_12_has_a_series_for_each_output_length() -> None:
    longer = [row(cap, 5000.0 + cap, output_tokens=52_000.0) for cap in (8, 32)]
    preempted = row(64, 9000, flags="preempted")
    figure, data = draw("fig12", FigureInputs(as_table([row(8, 9000), row(32, 20_000), preempted, *longer])))
    assert sorted(set(data["output_tokens_mean"])) == [130.0, 520.0]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["130", "130, preempted", "520"]


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
    figure, data = draw("fig13", FigureInputs(table, kernels=kernels()))
    title = figure.axes[0].get_title(loc="left")
    assert "2 replicas under MPS" in title
    assert "GPU busy 100.0%" in title
    assert "at once 0.0%" in title
    assert data["end_ms"].max() <= 12.0 + 1e-6
    footer = figure._supxlabel.get_text()  # type: ignore[attr-defined]
    assert "not drawn" not in footer, "profiled points are what this figure is about"


def test_figure_13_without_a_profiler_says_so() -> None:
    table = as_table([row(96, 20_000, 2, "yes")])
    figure, _ = draw("fig13", FigureInputs(table, kernels=kernels("nvml")))
    assert "by NVML" in figure.axes[0].get_title(loc="left")
