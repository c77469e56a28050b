"""Hugging Face `generate` on one static batch, with what its KV cache held after each step.

Runs in the engine's interpreter: needs torch and transformers; nothing else of memgap imports this module.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationConfig, StaticCache

from memgap.kinds.static.limits import check_positions

PAD_ID = 1
"""Stands left of a shorter prompt; the attention mask hides it."""
Run = Mapping[str, Any]


class HfModel:
    """A model of transformers on the GPU, or on the CPU where there is none.

    `model`: `target`, a folder or a repository of the hub; `dtype`; `revision` of the hub or None; `dummy`, where only
    its config.json is read and the weights are made up; `trust_remote_code`, without which code of its own is refused.
    """

    def __init__(self, model: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        if "threads" in options:
            torch.set_num_threads(int(options["threads"]))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        asked: dict[str, Any] = {"dtype": getattr(torch, model["dtype"])}
        if "attn-implementation" in options:
            asked["attn_implementation"] = options["attn-implementation"]
        torch.manual_seed(0)
        if model["dummy"]:
            with self.device:
                self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model["target"]), **asked)
        else:
            self.model = AutoModelForCausalLM.from_pretrained(
                model["target"], revision=model["revision"], trust_remote_code=model["trust_remote_code"], **asked
            ).to(self.device)
        self.model.eval()
        learned = [one for name, one in self.model.named_parameters() if "embed_positions" in name]
        self.positions = int(self.model.config.max_position_embeddings) if learned else None
        """The most positions of a request, where they are a table; rotary ones have no end."""
        self.kv_cache = str(options["kv-cache"])
        self.max_model_len = int(options["max-model-len"])

    def facts(self) -> dict[str, Any]:
        """Return versions, the weights' bytes, and what attention runs on."""
        tensors = {one.data_ptr(): one for one in (*self.model.parameters(), *self.model.buffers())}
        return {
            "version": transformers.__version__,
            "torch": torch.__version__,
            "weights_bytes": sum(one.numel() * one.element_size() for one in tensors.values()),
            "weights_bytes_source": "tensors",
            "attention_backend": str(self.model.config._attn_implementation),
            "max_model_len": self.max_model_len,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
        }

    def batch(self, prompts: Sequence[Sequence[int]], output_tokens: int) -> dict[str, Any]:
        """Generate `output_tokens` for every prompt together; returns the batch's times and its steps.

        Times are CLOCK_MONOTONIC in seconds. A step is one token of every request: `time_s` when it was there,
        `kv_slots` the token positions that the KV cache held for each request, `kv_bytes` its tensors' bytes,
        `allocated_bytes` and `reserved_bytes` those of torch's allocator (GPU only).
        Raises TooLongError for more positions than the model has.
        """
        longest = max(map(len, prompts))
        check_positions(longest, output_tokens, self.positions)
        padded = [[PAD_ID] * (longest - len(one)) + list(one) for one in prompts]
        mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        ids, attention = (torch.tensor(one, dtype=torch.long, device=self.device) for one in (padded, mask))
        cache = self._cache(longest + output_tokens - 1)
        steps = _Steps(cache, self.device)
        settings = GenerationConfig(
            max_new_tokens=output_tokens,
            min_new_tokens=output_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=PAD_ID,
            bos_token_id=None,
            use_cache=True,
            disable_compile=True,
        )
        began_s = steps.begin()
        with torch.inference_mode():
            found = self.model.generate(
                inputs=ids,
                attention_mask=attention,
                generation_config=settings,
                past_key_values=cache,
                stopping_criteria=[steps],
            )
        made = int(found.shape[1]) - longest
        rows = steps.finish()
        ended_s = time.monotonic()
        outcome: dict[str, Any] = {
            "start_monotonic_s": began_s,
            "end_monotonic_s": ended_s,
            "padded_prompt_tokens": longest,
            "generated_tokens": made,
            "steps": rows,
        }
        if self.device.type == "cuda":
            outcome["allocated_peak_bytes"] = torch.cuda.max_memory_allocated()
            outcome["reserved_peak_bytes"] = torch.cuda.max_memory_reserved()
        return outcome

    def _cache(self, needed: int) -> Any:
        if self.kv_cache == "dynamic":
            return DynamicCache(config=self.model.config)
        room = needed if self.kv_cache == "batch" else max(needed, self.max_model_len)
        return StaticCache(config=self.model.config, max_cache_len=room)

    def free(self) -> None:
        """Give what the allocator keeps back to the GPU, so that no batch inherits another one's memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Steps:
    """Called by `generate` after each token, in place of a stopping criterion; it never stops.

    GPU times come from CUDA events, so that nothing waits for the GPU that would not have.
    """

    def __init__(self, cache: Any, device: torch.device) -> None:
        self._cache = cache
        self._cuda = device.type == "cuda"
        self._rows: list[dict[str, float]] = []
        self._events: list[Any] = []
        self._began: Any = None
        self._began_s = 0.0

    def begin(self) -> float:
        """Start the clock; returns the moment."""
        if self._cuda:
            torch.cuda.synchronize()
            self._began = torch.cuda.Event(enable_timing=True)
            self._began.record()
        self._began_s = time.monotonic()
        return self._began_s

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        layers = [one for one in self._cache.layers if getattr(one, "keys", None) is not None]
        held = [tensor for one in layers for tensor in (one.keys, one.values)]
        row = {
            "kv_slots": float(held[0].shape[-2]) if held else 0.0,
            "kv_bytes": float(sum(one.numel() * one.element_size() for one in held)),
        }
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            row["allocated_bytes"] = float(torch.cuda.memory_allocated())
            row["reserved_bytes"] = float(torch.cuda.memory_reserved())
        else:
            row["time_s"] = time.monotonic()
        self._rows.append(row)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def finish(self) -> list[dict[str, float]]:
        """Return the steps with their moments, once the GPU is done."""
        if self._cuda:
            torch.cuda.synchronize()
            for row, event in zip(self._rows, self._events, strict=True):
                row["time_s"] = self._began_s + self._began.elapsed_time(event) / 1e3
        return self._rows
