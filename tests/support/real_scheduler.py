"""Runs vLLM's own scheduler, without a model, on made-up requests: `python real_scheduler.py MODEL CASES OUT`.

Needs an environment with vLLM. MODEL is a folder with a config.json, CASES and OUT are JSON: limits and requests
(prompt, output, step of arrival), and of each case what each step computes of each request.
"""

import json
import sys
from pathlib import Path
from typing import Any

BLOCK = 16


def scheduler(case: dict[str, Any], model: str) -> Any:
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config = ModelConfig(model=model, skip_tokenizer_init=True, dtype="float16", seed=0)
    limits = SchedulerConfig(
        max_num_seqs=case["max_num_seqs"],
        max_num_batched_tokens=case["max_batched_tokens"],
        max_model_len=config.max_model_len,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        async_scheduling=case["asynchronous"],
    )
    blocks = case["num_blocks"] + 1  # one of them is never given out
    cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=False)
    cache.num_gpu_blocks = blocks
    whole = VllmConfig(
        model_config=config, cache_config=cache, scheduler_config=limits, device_config=DeviceConfig("cpu")
    )
    layer = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    pool = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)])
    return (AsyncScheduler if case["asynchronous"] else Scheduler)(
        vllm_config=whole,
        kv_cache_config=pool,
        log_stats=True,
        structured_output_manager=StructuredOutputManager(whole),
        block_size=BLOCK,
        hash_block_size=BLOCK,
    )


def decisions(case: dict[str, Any], model: str) -> list[dict[str, int]]:
    """Return for each step how many tokens of each request it computes."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

    engine, requests = scheduler(case, model), case["requests"]
    due = sorted(range(len(requests)), key=lambda number: requests[number][2])
    found, begun, step = [], [], 0
    while engine.requests or due or any(one.total_num_scheduled_tokens for one in begun):
        while due and requests[due[0]][2] <= step:
            number = due.pop(0)
            prompt, output, _ = requests[number]
            wanted = SamplingParams(max_tokens=output, ignore_eos=True)
            engine.add_request(
                Request(
                    request_id=str(number), prompt_token_ids=[7] * prompt, sampling_params=wanted, pooling_params=None
                )
            )
        begun.append(engine.schedule())
        if begun[-1].total_num_scheduled_tokens:
            found.append(dict(begun[-1].num_scheduled_tokens))
        if len(begun) > case["asynchronous"] or not begun[-1].total_num_scheduled_tokens:
            done = begun.pop(0)
            names = list(done.num_scheduled_tokens)
            engine.update_from_output(
                done,
                ModelRunnerOutput(
                    req_ids=names,
                    req_id_to_index={name: place for place, name in enumerate(names)},
                    sampled_token_ids=[[9] if _through(done, name, engine) else [] for name in names],
                    logprobs=None,
                    prompt_logprobs_dict={},
                    pooler_output=[],
                ),
            )
        step += 1
    return found


def _through(step: Any, name: str, engine: Any) -> bool:
    """Whether all that is known of a request is computed after a step, so that it makes a token."""
    new = [one.num_computed_tokens for one in step.scheduled_new_reqs if one.req_id == name]
    cached = step.scheduled_cached_reqs
    before = new[0] if new else cached.num_computed_tokens[cached.req_ids.index(name)]
    return bool(before + step.num_scheduled_tokens[name] >= engine.requests[name].num_tokens)


if __name__ == "__main__":
    model, cases, out = sys.argv[1:]
    steps = [decisions(case, model) for case in json.loads(Path(cases).read_text())]
    Path(out).write_text(json.dumps(steps))
