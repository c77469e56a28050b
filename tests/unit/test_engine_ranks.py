"""What each rank of a server says of itself is put together, whichever engine says it and however many ranks speak."""

from typing import Any

import pytest

from memgap.engine.adapters import adapter_for
from memgap.engine.prometheus import parse_page
from memgap.engine.ranks import Sizes
from tests.support.records import small_study

GIB = 2**30


def facts(monkeypatch: pytest.MonkeyPatch, adapter: str, page: str, log: str, **args: Any) -> Any:
    """Return the facts of a server with these flags that answers with a metrics page and has written a log."""
    record = next(iter(small_study().points.values())).record
    answer = {"/metrics": page, "/version": "{}"}
    monkeypatch.setattr(f"memgap.engine.{adapter}._get", lambda url, path, key="": answer.get(path))
    flags = {name.replace("_", "-"): value for name, value in args.items()}
    return adapter_for(adapter).facts("http://127.0.0.1:1", {**record, "server": {"args": flags, "env": {}}}, log)


def weights(*ranks: str, gib: float = 1.5) -> str:
    return "".join(
        f"({one} pid={number}) INFO Model loading took {gib} GiB memory and 2 s\n"
        for number, one in enumerate(ranks, 40)
    )


@pytest.mark.parametrize(
    ("log", "args", "expected"),
    [
        (weights("Worker_TP0", "Worker_TP1"), {"tensor_parallel_size": 2}, 3.0),
        (weights("Worker_TP0"), {"tensor_parallel_size": 4}, 6.0),
        (weights("EngineCore_DP0", "EngineCore_DP1"), {"data_parallel_size": 2}, 3.0),
        (weights("Worker_DP0_TP0", "Worker_DP0_TP1", "Worker_DP1_TP0", "Worker_DP1_TP1"),
         {"tensor_parallel_size": 2, "data_parallel_size": 2}, 6.0),
        (weights("Worker_PP0", "Worker_PP1"), {"pipeline_parallel_size": 2}, 3.0),
        (weights("Worker_TP0"), {"tensor_parallel_size": 2, "prefill_context_parallel_size": 2}, 6.0),
        (weights("Worker_TP0", "Worker_TP1") * 2, {"tensor_parallel_size": 2}, 3.0),
        ("INFO Model loading took 1.5 GiB\n" * 2, {}, 1.5),
        ("INFO Model loading took 1.5 GiB\n" * 4, {"tensor_parallel_size": 2}, 3.0),
    ],
)  # fmt: skip
def test_vllm_weights_are_those_of_all_ranks(
    monkeypatch: pytest.MonkeyPatch, log: str, args: dict[str, Any], expected: float
) -> None:
    found = facts(monkeypatch, "vllm", "", log, **args)
    assert (found.weights_bytes, found.weights_bytes_source) == (round(expected * GIB), "log")


def test_stages_of_a_pipeline_are_not_as_large_as_the_one_that_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    one = facts(monkeypatch, "vllm", "", "")
    found = facts(monkeypatch, "vllm", "", weights("Worker_PP0"), pipeline_parallel_size=2)
    assert (found.weights_bytes, found.weights_bytes_source) == (one.weights_bytes, "architecture")
    assert facts(monkeypatch, "vllm", "", "", data_parallel_size=3).weights_bytes == 3 * one.weights_bytes
    assert facts(monkeypatch, "sglang", "", "", dp_size=3).weights_bytes == 3 * one.weights_bytes
    assert facts(monkeypatch, "vllm", "", "", tensor_parallel_size=2).weights_bytes == one.weights_bytes


def lines(blocks: int, tokens: int | None, engines: int) -> str:
    more = "" if tokens is None else f',kv_cache_size_tokens="{tokens}"'
    return "".join(
        f'vllm:cache_config_info{{block_size="16",engine="{engine}",num_gpu_blocks="{blocks}"{more}}} 1.0\n'
        for engine in range(engines)
    )


@pytest.mark.parametrize(
    ("page", "log", "args", "tokens", "blocks"),
    [
        (lines(500, 8000, 1), "", {}, 8000, 500),
        (lines(500, 8000, 1), "", {"tensor_parallel_size": 4}, 8000, 500),
        (lines(500, 8000, 3), "", {"data_parallel_size": 3}, 24000, 1500),
        (lines(1500, 8000, 3), "", {"data_parallel_size": 3}, 24000, 1500),
        (lines(500, None, 2), "", {"data_parallel_size": 2}, 16000, 1000),
        (lines(1000, None, 2),
         "(EngineCore_DP0 pid=1) GPU KV cache size: 8,000 tokens\n"
         "(EngineCore_DP1 pid=2) GPU KV cache size: 7,984 tokens\n",
         {"data_parallel_size": 2}, 15984, 1000),
        ("", "GPU KV cache size: 8,000 tokens\n" * 2, {}, 8000, None),
        (lines(500, 8000, 1), "", {"data_parallel_size": 2}, 16000, 500),
    ],
)  # fmt: skip
def test_vllm_pool_is_that_of_all_engines(
    monkeypatch: pytest.MonkeyPatch, page: str, log: str, args: dict[str, Any], tokens: int, blocks: int | None
) -> None:
    found = facts(monkeypatch, "vllm", page, log, **args)
    assert (found.kv_pool_tokens, found.num_gpu_blocks) == (tokens, blocks)


def test_more_ranks_than_heads_keep_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    one = facts(monkeypatch, "vllm", lines(500, 8000, 1), "")
    heads = next(iter(small_study().points.values())).record["model"]["architecture"]["kv_heads"]
    same = facts(monkeypatch, "vllm", lines(500, 8000, 1), "", tensor_parallel_size=heads)
    twice = facts(monkeypatch, "vllm", lines(500, 8000, 1), "", tensor_parallel_size=2 * heads)
    assert (same.kv_pool_bytes, twice.kv_pool_bytes) == (one.kv_pool_bytes, 2 * one.kv_pool_bytes)


def gauges(name: str, *values: tuple[str, float]) -> str:
    return "".join(f"sglang:{name}{{{labels}}} {value}\n" for labels, value in values)


PLAIN = ('tp_rank="0",pp_rank="0"', 'tp_rank="1",pp_rank="0"', 'tp_rank="0",pp_rank="1"')
ATTENTION = ('dp_rank="0",tp_rank="0"', 'dp_rank="0",tp_rank="1"', 'dp_rank="1",tp_rank="2"', 'dp_rank="1",tp_rank="3"')


@pytest.mark.parametrize(
    ("ranks", "running", "usage", "pool"),
    [
        (PLAIN, {"num_requests_running": 8}, {"kv_cache_usage_fraction": 0.2}, 4000),
        (ATTENTION, {"num_requests_running": 16},
         {"kv_cache_usage_fraction": 0.3, "kv_cache_usage_fullest_fraction": 0.4}, 8000),
    ],
)  # fmt: skip
def test_sglang_counts_each_engine_once(
    monkeypatch: pytest.MonkeyPatch, ranks: tuple[str, ...], running: Any, usage: Any, pool: int
) -> None:
    page = gauges("num_running_reqs", *((one, 8) for one in ranks))
    page += gauges("token_usage", *((one, 0.4 if 'dp_rank="1"' in one else 0.2) for one in ranks))
    page += gauges("max_total_num_tokens", *((one, 4000) for one in ranks))
    page += gauges("page_size", *((one, 16) for one in ranks))
    none_yet = {"num_preemptions": 0, "prefix_cache_hits": 0}  # which the page has from the first one on
    assert adapter_for("sglang").metrics_sample(parse_page(page)) == pytest.approx({**running, **usage, **none_yet})
    found = facts(monkeypatch, "sglang", page, "")
    assert (found.kv_pool_tokens, found.kv_block_tokens, found.num_gpu_blocks) == (pool, 16, pool // 16)


def test_sglang_logs_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "".join(
        f"[2026-01-01 00:00:00 DP{dp} TP{tp}] Load weight end. elapsed=1 s, avail mem=70.10 GB, mem usage=2.00 GB.\n"
        for dp in range(2)
        for tp in range(2)
    )
    log += "".join(f"[2026-01-01 00:00:00 DP{dp} TP0] max_total_num_tokens=5000, context_len=64\n" for dp in range(2))
    found = facts(monkeypatch, "sglang", "", log, tp_size=2, dp_size=2)
    assert (found.weights_bytes, found.kv_pool_tokens, found.max_model_len) == (8 * GIB, 10000, 64)
    shared = facts(monkeypatch, "sglang", "", log, tp_size=4, dp_size=2, enable_dp_attention=True)
    assert shared.weights_bytes == 8 * GIB


def test_the_share_in_use_is_that_of_all_pools_together() -> None:
    page = 'vllm:kv_cache_usage_perc{engine="0"} 0.6\nvllm:kv_cache_usage_perc{engine="1"} 0.2\n'
    expected = {"kv_cache_usage_fraction": 0.4, "kv_cache_usage_fullest_fraction": 0.6}
    assert adapter_for("vllm").metrics_sample(parse_page(page)) == pytest.approx(expected)


def test_sizes_are_read_from_flags_in_any_spelling() -> None:
    names = adapter_for("sglang").flags
    assert Sizes.of(names, {"tp": 4, "dp_size": "2"}) == Sizes(4, 1, 2)
    assert Sizes.of(names, {"tp": "four", "pp-size": 0}) == Sizes(1, 1, 1)
    assert Sizes.of(adapter_for("hf").flags, {}) == Sizes()
