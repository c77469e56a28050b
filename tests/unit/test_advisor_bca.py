"""The advisor's rule, the memory it advises, and what it says when nothing fits."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.advisor.bca import Profile, advise, slo_bound_ms
from memgap.advisor.flags import advised_arguments, advised_flags
from memgap.advisor.memory import memory_need
from memgap.advisor.report import advice_for, profile_of, write_advice
from memgap.config.load import check_config
from memgap.engine.adapters import adapter_for
from memgap.errors import UserError
from memgap.tables.points import as_table
from tests.support.paper import B_OPT, MULTIPLES, profiles
from tests.support.records import small_config

PROFILE = [
    Profile(1, 100.0, 10.0),
    Profile(8, 600.0, 12.0),
    Profile(32, 1500.0, 20.0),
    Profile(64, 1400.0, 30.0),
    Profile(128, 1700.0, 60.0),
    Profile(256, None, None, "preempted"),
]


def test_b_opt_has_the_highest_throughput_and_not_the_largest_cap() -> None:
    decision = advise(PROFILE, {"ms": 40.0}, 0.1)
    assert decision.b_opt == 32
    assert [one.batch_cap for one in decision.candidates if one.feasible] == [1, 8, 32, 64]
    assert decision.candidates[-1].reason == "preempted"
    assert "88% of the highest" in decision.sentence


def test_epsilon_bounds_the_gain() -> None:
    assert advise(PROFILE, {"ms": 100.0}, 0.1).b_opt == 128
    assert advise(PROFILE, {"ms": 100.0}, 0.2).b_opt == 32
    assert advise(PROFILE, {"ms": 100.0}, 0.5).b_opt == 8


def test_a_multiple_takes_the_nearest_cap_by_ratio_and_the_smaller_of_a_tie() -> None:
    assert slo_bound_ms(PROFILE, {"multiple": 2.0, "times_latency_at": 32})[0] == 40.0
    bound, source = slo_bound_ms(PROFILE, {"multiple": 2.0, "times_latency_at": 16})
    assert bound == 24.0
    assert "cap 8" in source
    assert "nearest to 16" in source


def test_nothing_in_time_says_what_would_do() -> None:
    decision = advise(PROFILE, {"ms": 5.0}, 0.1)
    assert decision.b_opt is None
    assert "lowest latency is 10.0 ms at cap 1; an SLO of at least 10.0 ms" in decision.sentence


def test_nothing_above_epsilon_says_what_would_do() -> None:
    decision = advise(PROFILE[1:], {"ms": 100.0}, 1.0)
    assert decision.b_opt is None
    assert "gains more than epsilon = 1" in decision.sentence


def test_nothing_measured_is_a_sentence() -> None:
    decision = advise([Profile(4, None, None, "not measured: oom")], {"multiple": 2}, 0.1)
    assert decision.b_opt is None
    assert "cap 4: not measured: oom" in decision.sentence
    assert advise([], {"ms": 1.0}, 0.1).b_opt is None


def test_without_cap_1_the_smallest_cap_stands_in_and_a_note_says_so() -> None:
    decision = advise(PROFILE[1:], {"ms": 40.0}, 0.1)
    assert decision.base_throughput_tok_s == 75.0
    assert "Cap 1 was not measured" in decision.notes[0]


GIB = 2**30


def need(**changes: Any) -> Any:
    """Return the memory of a 64 GiB GPU with a 50 GiB pool a fifth full."""
    numbers: dict[str, Any] = {
        "device": "cuda",
        "usage_fraction": 0.2,
        "kv_pool_bytes": 50 * GIB,
        "kv_block_bytes": GIB // 256,
        "kv_one_request_bytes": GIB,
        "weights_bytes": 4 * GIB,
        "device_memory_bytes": 64 * GIB,
        "utilization": 0.9,
        "margin": 0.1,
        "limit_fraction": 0.9,
    }
    return memory_need(**{**numbers, **changes})


def test_memory_is_weights_other_and_the_used_pool_with_a_margin() -> None:
    found = need()
    other = 0.9 * 64 - 4 - 50
    assert found.kv_with_margin_bytes == 11 * GIB
    assert found.fraction == pytest.approx((4 + other + 11) / 64, abs=0.001)
    assert found.replicas == 3
    assert found.kv_freed_bytes == 39 * GIB


def test_at_least_one_longest_request_fits() -> None:
    assert need(usage_fraction=0.0).kv_with_margin_bytes == GIB


def test_a_cpu_gets_no_share_of_gpu_memory() -> None:
    found = need(device="cpu")
    assert found.fraction is None
    assert found.replicas is None
    assert "CPU" in found.notes[0]


def test_unknown_numbers_are_not_invented() -> None:
    assert need(utilization=None).fraction is None
    assert need(usage_fraction=None).kv_with_margin_bytes is None


def test_flags_replace_the_measured_ones() -> None:
    args = {"max-num-seqs": 512, "gpu-memory-utilization": 0.9, "max-model-len": 2048, "enable-prefix-caching": False}
    flags = advised_flags(args, 96, need())
    assert flags[:3] == ["--max-num-seqs", "96", "--gpu-memory-utilization"]
    assert flags[4:] == ["--no-enable-prefix-caching", "--max-model-len", "2048"]
    assert "--kv-cache-memory-bytes" in advised_flags(args, 96, need(device="cpu"))
    spread = advised_arguments({"tensor-parallel-size": 2}, 96, need(device="cpu"))
    whole = advised_arguments({}, 96, need(device="cpu"))
    assert 2 * spread["kv-cache-memory-bytes"] == pytest.approx(whole["kv-cache-memory-bytes"], abs=1)


def test_an_engine_whose_share_is_of_free_memory_is_advised_tokens() -> None:
    names = adapter_for("sglang").flags
    args = {"max-running-requests": 512, "mem-fraction-static": 0.8, "disable-radix-cache": True, "tp": False}
    flags = advised_flags(args, 96, need(kv_token_bytes=GIB / 1000), names)
    assert flags == ["--max-running-requests", "96", "--max-total-tokens", "11000", "--disable-radix-cache"]


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Return table rows of one model."""
    base = {
        "model": "m",
        "status": "ok",
        "flags": "",
        "device": "cuda",
        "server_args": "{}",
        "kv_cache_usage_max_fraction": 0.2,
        "kv_pool_bytes": 1e9,
        "weights_bytes": 1e9,
        "gpu_memory_bytes": 4e9,
        "gpu_memory_utilization": 0.9,
        **changes,
    }
    return [
        {**base, "batch_cap": cap, "total_throughput_tok_s": 100.0 * cap**0.8, "itl_mean_ms": 5.0} for cap in (1, 2, 4)
    ]


def settings() -> dict[str, Any]:
    """Return the advisor's defaults."""
    found: dict[str, Any] = check_config(small_config())["advisor"]
    return found


def test_the_advice_is_a_document() -> None:
    advice = advice_for(as_table(rows()), "m", settings())
    assert advice["b_opt"] == 4
    assert advice["server_flags"][:2] == ["--max-num-seqs", "4"]
    assert "b_opt: 4" in write_advice(advice)


def test_failed_and_preempted_points_are_no_candidates() -> None:
    table = as_table([*rows()[:2], {**rows()[2], "flags": "preempted"}, {**rows(status="oom")[2], "batch_cap": 8}])
    advice = advice_for(table, "m", settings())
    assert advice["b_opt"] == 2
    assert [one["reason"] for one in advice["candidates"]][2:] == [
        "preempted: the cap does not fit into the KV cache",
        "not measured: oom",
    ]


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="no point of the model 'x'; it has m"):
        advice_for(as_table(rows()), "x", settings())


@pytest.mark.parametrize(("model", "epsilon"), sorted(B_OPT))
def test_the_papers_profiles_give_the_papers_decisions(model: str, epsilon: float) -> None:
    """The published rule takes the largest feasible cap; ours the one with the highest throughput among them."""
    for multiple, published in zip(MULTIPLES, B_OPT[model, epsilon], strict=True):
        decision = advise(profiles()[model], {"multiple": multiple, "times_latency_at": 32}, epsilon)
        feasible = [one for one in decision.candidates if one.feasible]
        assert max(one.batch_cap for one in feasible) == published
        assert decision.b_opt == max(feasible, key=lambda one: one.throughput_tok_s or 0).batch_cap


def test_the_table_of_the_paper_is_the_papers(reference: Path) -> None:
    published = pd.read_csv(reference / "fig10.csv").set_index(["model", "batch_size"])
    ours = {(model, one.batch_cap): one for model, rows in profiles().items() for one in rows}
    assert set(published.index) == set(ours)
    for place, row in published.iterrows():
        one = ours[place]
        assert one.throughput_tok_s == pytest.approx(row["total_token_throughput_tok_per_s"], rel=5e-4)
        assert one.latency_ms == pytest.approx(row["mean_itl_ms"], rel=5e-3)
        assert bool(one.excluded) == (row["preemptions_total"] > 0)
    decisions = pd.read_csv(reference / "fig10_bca_decisions.csv")
    decisions = decisions[decisions["exclude_preempted"]].sort_values("slo_multiple_of_itl_b32")
    said = decisions.groupby(["model", "epsilon"])["b_opt"].agg(tuple).to_dict()
    assert said == B_OPT


def test_a_cap_without_the_chosen_latency_is_not_called_preempted() -> None:
    single = {"itl_mean_ms": None, "output_tokens": 40, "requests_completed": 40, "e2e_mean_ms": 5.0}
    (found,) = profile_of(as_table([{**rows()[0], **single}]), "itl_mean_ms")
    assert found.excluded == (
        "measured, but without itl_mean_ms: replies of one token have no time between tokens "
        "(advisor.latency could be e2e_mean_ms)"
    )
    (found,) = profile_of(as_table([{**rows()[0], "itl_mean_ms": None}]), "itl_mean_ms")
    assert found.excluded == "measured, but without itl_mean_ms"
    (found,) = profile_of(as_table([{**rows()[0], "total_throughput_tok_s": None}]), "itl_mean_ms")
    assert found.excluded == "measured, but no throughput came of it"
