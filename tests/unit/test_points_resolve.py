"""What arguments name is resolved once for all kinds: limits of every engine hold in every kind, by its own flag."""

from collections.abc import Mapping
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.study.study import expand_study

ENGINES = {
    "vllm": ({"adapter": "vllm", "version": "0.1"}, "max-model-len"),
    "sglang": ({"adapter": "sglang", "version": "0.1"}, "context-length"),
}


def config(engine: str, section: str, prompt_tokens: int, context: int) -> dict[str, Any]:
    settings, flag = ENGINES[engine]
    server: Mapping[str, Any] = {flag: context}
    fixed: dict[str, Any] = {"model": "opt-125m", "dataset": "long", "server": server}
    load = {"load": {"requests": 4}, "batch_cap": 2}
    groups: dict[str, Any] = {
        "sweeps": {"fixed": {**fixed, **load}},
        "loadtests": {"fixed": {**fixed, "users": 2, "output_tokens": 600}},
        "tuning": {"fixed": {**fixed, **load}, "tiers": {"one": {"experiments": {"a": {"batch_cap": [2, 4]}}}}},
    }
    return {
        "engines": {engine: settings},
        "datasets": {
            "long": {"kind": "random", "requests": 40, "prompt_tokens": prompt_tokens, "output_tokens": 8},
        },
        section: {"g": groups[section]},
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("section", ["sweeps", "loadtests", "tuning"])
def test_prompts_beyond_the_servers_context_are_refused_whatever_the_engine_calls_it(engine: str, section: str) -> None:
    with pytest.raises(UserError, match="512"):
        expand_study(check_config(config(engine, section, 900, 512)))
    fits = expand_study(check_config(config(engine, section, 100, 1024)))
    assert fits.points or fits.plans


@pytest.mark.parametrize("engine", ENGINES)
def test_a_load_test_whose_outputs_do_not_fit_is_refused(engine: str) -> None:
    with pytest.raises(UserError, match=f"leaves no room in {ENGINES[engine][1]} 512"):
        expand_study(check_config(config(engine, "loadtests", 16, 512)))


def test_flags_are_asked_by_their_meaning() -> None:
    sglang = GivenFlags("sglang", {"tp": 2, "pp-size": "2", "max-running-requests": 7})
    assert sglang.gpus == 4
    assert GivenFlags("vllm", {"tensor-parallel-size": 2, "prefill-context-parallel-size": 2}).gpus == 4
    assert (sglang.whole("max_seqs", 1), sglang.whole("max_model_len", 9)) == (7, 9)
    assert sglang.name("speculation") is None
    assert sglang.get("speculation", "none") == "none"
    with pytest.raises(UserError, match="here: the server flag max-num-seqs has to be a whole number"):
        GivenFlags("vllm", {"max-num-seqs": "many"}, "here").whole("max_seqs", 1)


@pytest.mark.parametrize("model", ["mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b"])
def test_a_model_that_its_config_json_describes_is_swept_like_any_other(model: str) -> None:
    asked = config("vllm", "sweeps", 100, 1024)
    asked["sweeps"]["g"]["fixed"] |= {"model": model, "server": {}}
    (point,) = expand_study(check_config(asked)).points.values()
    assert point.record["dataset"]["vocabulary_size"] > 30_000
