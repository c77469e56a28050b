"""Which configurations a tuning races, and what is refused before any server is started."""

from typing import Any

import pytest

from memgap.canonical import canonical_json, content_key
from memgap.errors import UserError
from memgap.study.plan import plan_of
from memgap.tuning.candidates import RACE_REPEATS, Builder, deviations, point_of
from memgap.tuning.plan import race_plan, race_rule, races, tier_before
from memgap.tuning.speculation import segment
from memgap.tuning.validate import check_flags
from memgap.workflow import load_study
from tests.support.records import small_study
from tests.support.tunings import tuning_config, tuning_plan

SUBJECT = ("tiny-opt", "short")
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
SYNTHETIC = {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.5}


def real(server: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a configuration for vLLM on a model of 32 heads, with one experiment of these flags."""
    config = tuning_config(
        fixed={"model": "opt-1.3b", "server": {}},
        tiers={"first": {"experiments": {"one": {"server": server}}}},
        **changes,
    )
    config["engines"] = {"vllm": {"adapter": "vllm"}}
    config["models"] = {"opt-1.3b": {"weights": "synthetic"}}
    config["resources"] = {"gpus": 8}
    return config


def test_every_list_is_an_axis_and_the_default_has_none_of_the_swept_flags() -> None:
    plan = tuning_plan(
        fixed={"server": {"max-num-seqs": [2, 4], "block-size": [16, 32], "step-base-ms": 3.0}},
        tiers={"first": {"experiments": {"all": {}, "again": {"server": {"max-num-seqs": 2}}}}},
    )
    builder = Builder(plan, SUBJECT)
    (default,) = builder.defaults()
    assert default.record["server"]["args"] == {"step-base-ms": 3.0}
    found = builder.tier(0, None)
    assert len(found) == 4, "what two experiments have is one configuration"
    assert [one.also for one in found] == [["again"], ["again"], [], []]


def test_a_server_may_take_fewer_requests_than_the_client_holds_open() -> None:
    plan = tuning_plan(fixed={"batch_cap": 8, "server": {"max-num-seqs": [2]}})
    (found,) = [
        one for one in Builder(plan, SUBJECT).tier(0, None) if one.record["server"]["args"]["step-base-ms"] == 2.0
    ]
    assert found.record["load"]["concurrency"] == 8 and found.record["server"]["args"]["max-num-seqs"] == 2


def test_a_later_tier_builds_on_the_winner() -> None:
    plan = tuning_plan()
    builder = Builder(plan, SUBJECT)
    won = builder.tier(0, None)[0]
    (next_one,) = builder.tier(1, won.arguments)
    assert next_one.record["server"]["args"] == {"step-base-ms": 2.0, "block-size": 32}
    assert deviations(next_one.arguments, won.arguments) == ["block-size 32"]
    assert tier_before(plan, "memory") == "speed" and tier_before(plan, "speed") is None


def test_a_measurement_of_a_race_is_a_normal_point_with_its_block_as_the_repeat() -> None:
    plan = tuning_plan(
        fixed={"batch_cap": 1, "server": {"step-base-ms": 1.0}, "load": {"requests": 6, "warmup_requests": 1}}
    )
    default = Builder(plan, SUBJECT).defaults()[0]
    same = small_study(batch_cap=1).points
    assert point_of(default, 0).key in same, "a sweep's point with the same record has the same key"
    assert point_of(default, RACE_REPEATS).key == content_key(default.repeated(RACE_REPEATS))
    assert len({point_of(default, block).key for block in range(5)}) == 5


def test_a_null_among_mappings_leaves_the_flag_out() -> None:
    synthetic = {"method": "draft_model", "model": "some/draft-1b", "num_speculative_tokens": 4, **SYNTHETIC}
    plan = tuning_plan(real({"speculative-config": [None, synthetic]}))
    given = [one.record["server"]["args"] for one in Builder(plan, ("opt-1.3b", "short")).tier(0, None)]
    assert given == [{}, {"speculative-config": synthetic}]
    assert segment(synthetic) == "draft-1b_4 (synthetic acceptance, length 2.5)" and segment(None) == "none"
    with pytest.raises(UserError, match="accidental acceptance"):
        load_study(real({"speculative-config": {**NGRAM, **SYNTHETIC}}))  # no text, no draft to accept


def test_the_confidence_is_of_the_whole_tuning() -> None:
    assert race_rule(tuning_plan()).false_winner_rate == 0.025


def test_prices_and_other_tiers_are_no_part_of_a_race() -> None:
    plain = canonical_json(race_plan(tuning_plan(), "speed"))
    assert canonical_json(race_plan(tuning_plan(usd_per_gpu_hour={"H200": 3.0}), "speed")) == plain
    config = tuning_config()
    config["tuning"]["toy"]["tiers"]["memory"]["experiments"]["blocks"]["server"]["block-size"] = [8]
    changed = tuning_plan(config)
    assert canonical_json(race_plan(changed, "speed")) == plain
    assert canonical_json(race_plan(changed, "memory")) != canonical_json(race_plan(tuning_plan(), "memory"))


def test_models_and_datasets_are_raced_apart() -> None:
    config = tuning_config(fixed={"dataset": ["short", "long"]})
    config["datasets"]["long"] = {**config["datasets"]["short"], "output_tokens": 20}
    found = list(races(plan_of(load_study(config), "tuning", "toy")))
    assert [(subject[1], tier) for subject, tier in found] == [
        ("short", "speed"),
        ("short", "memory"),
        ("long", "speed"),
        ("long", "memory"),
    ]


def test_the_default_may_be_the_first_that_runs() -> None:
    plan = tuning_plan(default={"server": {"tensor-parallel-size": [1, 2, 4]}})
    assert [one.gpus for one in Builder(plan, SUBJECT).defaults()] == [1, 2, 4]


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        ({"tensor-parallel-size": 3}, "opt-1.3b has 32 attention heads, which tensor-parallel-size 3 does not divide."),
        ({"pipeline-parallel-size": 32}, "pipeline-parallel-size 32 is above the 24 layers."),
        ({"data-parallel-size": 4, "tensor-parallel-size": 4}, "takes 16 GPUs, but there are 8"),
        ({"gpu-memory-utilization": 1.2}, "gpu-memory-utilization has to lie above 0 and up to 1, not 1.2."),
        ({"max-num-seqs": 512, "max-num-batched-tokens": 256}, "max-num-batched-tokens 256 is below max-num-seqs 512"),
        (
            {"enable-chunked-prefill": False, "max-num-batched-tokens": 512, "max-model-len": 2048},
            "without chunked prefill max-num-batched-tokens 512 has to be 2048 or more.",
        ),
        ({"port": 8000}, "the server flag 'port' is set by memgap itself"),
        ({"max-num-seqs": "many"}, "max-num-seqs has to be a whole number here, not 'many'."),
        ({"speculative-config": NGRAM}, "whose weights are made up, would measure an accidental acceptance"),
        ({"speculative-config": {"num_speculative_tokens": 4}}, "names neither a method nor a draft model"),
        ({"speculative-config": {**NGRAM, "num_speculative_tokens": 0}}, "has to be 1 or more, not 0."),
        ({"enable-prefix-caching": True, "no-enable-prefix-caching": True}, "contradicts enable-prefix-caching"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_a_configuration_that_cannot_be_is_refused_in_one_sentence(server: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        load_study(real(server))
    assert sentence in str(error.value)
    assert "config: tuning.toy" in str(error.value) and "\n" not in str(error.value)


def test_a_share_of_the_memory_is_not_varied_beside_a_pool_of_set_size() -> None:
    config = real({"gpu-memory-utilization": [0.5, 0.9]})
    assert load_study(config).tunings
    config["tuning"]["toy"]["fixed"]["server"] = {"kv-cache-memory-bytes": 10**9}
    with pytest.raises(UserError, match="does not size the KV cache beside kv-cache-memory-bytes"):
        load_study(config)


def test_speculation_on_random_tokens_is_refused_with_real_weights_too() -> None:
    config = real({"speculative-config": NGRAM})
    config["models"] = {}
    with pytest.raises(UserError, match="depends on the text, but dataset short has random tokens"):
        load_study(config)
    config["datasets"]["short"] = {"kind": "sharegpt", "requests": 32, "token_ids": "text"}
    assert load_study(config).tunings


def test_kv_heads_are_divided_or_copied() -> None:
    config = real({"tensor-parallel-size": [1, 2, 8, 16]}, gpus=16)
    config["models"]["opt-1.3b"] = {"base": "llama-3-8b", "weights": "synthetic"}
    assert load_study(config).tunings
    config["tuning"]["toy"]["tiers"]["first"]["experiments"]["one"]["server"]["tensor-parallel-size"] = 32
    config["tuning"]["toy"]["gpus"] = 32
    assert load_study(config).tunings, "8 KV heads are copied to 32 GPUs"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blocks": {"least": 5, "most": 3}}, "most 3 is below least 5"),
        ({"tiers": {"a": {"experiments": {"x": {"model": "opt-99"}}}}}, "opt-99"),
        ({"tiers": {"a": {"experiments": {"x": {"dataset": "shor"}}}}}, "unknown dataset 'shor'"),
        ({"objective": "speed"}, "'speed' is none of"),
        ({"skip_failure_reasons": ["hunger"]}, "hunger"),
    ],
)
def test_mistakes_in_the_settings_are_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_study(tuning_config(**changes))


def test_servers_kept_together_need_a_pool_of_set_size() -> None:
    with pytest.raises(UserError, match="each server needs a KV cache of set size"):
        load_study(real({"max-num-seqs": [2, 4]}, servers="together"))
    pool = {"kv-cache-memory-bytes": 10**9, "max-num-seqs": [2, 4]}
    with pytest.raises(UserError, match="starts only where its gpu-memory-utilization is free"):
        load_study(real(pool, servers="together"))
    assert load_study(real({**pool, "gpu-memory-utilization": 0.2}, servers="together")).tunings
    assert load_study(real(pool, servers="together", gpus=0)).tunings, "a CPU has no such share"


def test_a_flag_that_the_engine_does_not_have_is_named() -> None:
    with pytest.raises(UserError, match="vllm has no flag 'calculate-kv-scales'"):
        check_flags(["max-num-seqs", "calculate-kv-scales"], {"max-num-seqs", "block-size"}, "vllm", "here")
    with pytest.raises(UserError, match="did you mean 'max-num-seqs'"):
        check_flags(["max-num-seq"], {"max-num-seqs", "no-enable-x"}, "vllm", "here")
    check_flags(["enable-x"], {"no-enable-x"}, "vllm", "here")
