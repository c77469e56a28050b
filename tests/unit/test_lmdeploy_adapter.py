"""LMDeploy's and TensorRT-LLM's adapters, by what their sources say: nothing of them runs here."""

import json
from typing import Any

import pytest
import yaml

from memgap.engine.base import SCRATCH, Launch
from memgap.engine.lmdeploy import START, LmdeployAdapter
from memgap.engine.prometheus import parse_page
from memgap.engine.trtllm import OPTIONS_FILE, TrtllmAdapter
from memgap.errors import UserError
from memgap.workflow import load_study
from tests.support.records import small_config, small_study

LOG = """INFO - base.py:439 - Building CacheEngine with config:
CacheConfig(max_batches=256, block_size=64, num_cpu_blocks=0, num_gpu_blocks=500, device_type='cuda', role=<A.B: 1>).
INFO - async_engine.py:168 - updated backend_config=PytorchEngineConfig(dtype='bfloat16', tp=1, session_len=4096, \
max_batch_size=256, cache_max_entry_count=0.8, block_size=64, eager_mode=False, max_prefill_token_num=8192, \
quant_policy=<QuantPolicy.NONE: 0>, hf_overrides=None, download_dir='/secret')
"""


def record(**args: Any) -> dict[str, Any]:
    """Return a server record of the adapter."""
    made = next(iter(small_study().points.values())).record
    return {**made, "server": {**made["server"], "args": args}}


def launched(adapter: Any, **args: Any) -> Launch:
    """Return the launch of a server with these flags."""
    launch: Launch = adapter.launch("/e/bin/python", record(**args), "/models/m", 4321, "SECRET")
    return launch


def test_lmdeploy_is_started_with_a_key_that_no_process_list_shows() -> None:
    launch = launched(LmdeployAdapter(), **{"max-batch-size": 8, "enable-prefix-caching": False})
    text = " ".join(launch.argv)
    assert text.startswith(f"/e/bin/python {SCRATCH}/{START} serve api_server /models/m --backend pytorch")
    assert "--server-name 127.0.0.1 --server-port 4321 --model-name tiny-opt --dtype bfloat16" in text
    assert text.endswith("--max-batch-size 8")
    assert "SECRET" not in text + json.dumps(launch.env)
    assert json.loads(launch.files["key.json"]) == "SECRET"
    compile(launch.files[START], START, "exec")


def test_lmdeploy_tells_its_cache_in_the_log() -> None:
    facts = LmdeployAdapter().facts("http://127.0.0.1:9", record(), LOG)
    assert (facts.num_gpu_blocks, facts.kv_block_tokens, facts.kv_pool_tokens) == (500, 64, 32000)
    assert facts.max_model_len == 4096
    told = facts.resolved["backend_config"]
    assert (told["max_batch_size"], told["cache_max_entry_count"], told["eager_mode"]) == (256, 0.8, False)
    assert "secret" not in str(facts)
    assert LmdeployAdapter().facts("http://127.0.0.1:9", record(), "").kv_pool_tokens is None


def test_lmdeploys_page_gives_the_columns() -> None:
    page = parse_page(
        'lmdeploy:num_requests_running{engine="0"} 3.0\n'
        'lmdeploy:gpu_cache_usage_perc{engine="0"} 0.5\n'
        'lmdeploy:prompt_tokens_total{engine="0"} 30.0\n'
        'lmdeploy:generation_tokens_total{engine="0"} 7.0\n'
    )
    assert LmdeployAdapter().metrics_sample(page) == {
        "num_requests_running": 3.0,
        "kv_cache_usage_fraction": 0.5,
        "prompt_tokens": 30.0,
        "generation_tokens": 7.0,
        "prefix_cache_queries": 30.0,
    }


def test_their_logs_tell_the_failure() -> None:
    assert LmdeployAdapter().failure_kind("RuntimeError: No enough gpu memory for kv cache.") == "oom"
    assert LmdeployAdapter().failure_kind("x.py: error: unrecognized arguments: --y") == "bad_config"
    assert TrtllmAdapter().failure_kind("RuntimeError: Failed to bind socket to 127.0.0.1:1: in use") == "port_in_use"
    assert TrtllmAdapter().failure_kind("all is well") is None


def test_lmdeploy_is_sent_text_and_says_so_where_it_would_not_be() -> None:
    config = small_config(engine="it", batch_cap=4, cap_side="server")
    config["engines"] = {"it": {"adapter": "lmdeploy", "version": "0.18.0"}}
    with pytest.raises(UserError, match="takes no token ids as a prompt"):
        load_study(config)
    config["sweeps"]["small"]["fixed"]["load"]["prompt_form"] = "text"
    (point,) = load_study(config).points.values()
    assert point.record["server"]["args"] == {"step-base-ms": 1.0, "max-batch-size": 4}


def test_trtllms_options_go_into_flags_and_its_file() -> None:
    launch = launched(TrtllmAdapter(), **{"max-batch-size": 8, "kv-cache-config": {"enable_block_reuse": False}})
    text = " ".join(launch.argv)
    assert text.startswith("/e/bin/trtllm-serve /models/m --backend pytorch --host 127.0.0.1 --port 4321")
    assert text.endswith("--max_batch_size 8")
    options = yaml.safe_load(launch.files[OPTIONS_FILE])
    assert options["load_format"] == "dummy"
    assert options["kv_cache_config"] == {"enable_block_reuse": False}
