"""Reading a config.json by what its keys mean, whatever a family calls them."""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from memgap.errors import UserError

NESTED = ("text_config", "llm_config", "language_config")
"""Keys under which a model of several modalities keeps the shape of its decoder."""

MOST = 2**40
"""No size of a model reaches it."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim"),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "block_ff_dim"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "length": (
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
        "model_max_length",
    ),
    "activation": ("hidden_act", "activation_function", "hidden_activation", "mlp_hidden_act"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"),
    "experts_per_token": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "moe_topk",
        "moe_k",
        "moe_top_k",
        "top_k_experts",
    ),
    "expert_ffn": ("moe_intermediate_size", "expert_ffn_hidden_size"),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "shared_ffn": (
        "moe_shared_expert_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ),
    "dense_first": ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"),
    "window": ("sliding_window", "sliding_window_size", "attention_window_size"),
    "window_pattern": ("sliding_window_pattern", "_sliding_window_pattern"),
}
"""What the reader asks for -> the names that families use, the most common first."""


@functools.cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """Return what each known model type takes for keys that its config.json leaves out."""
    text = resources.files("memgap.models").joinpath("hf_defaults.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content


class Keys:
    """The keys of one decoder's config. A name of ALIASES or a key itself is asked for; what is absent falls back to
    the family's own default, and a null counts as given without a value.
    """

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        outer = dict(config)
        inner: Mapping[str, Any] = next((outer[key] for key in NESTED if isinstance(outer.get(key), Mapping)), {})
        if not inner and isinstance(outer.get("thinker_config"), Mapping):
            inner = outer["thinker_config"].get("text_config") or {}
        self.where = where
        self.nested = bool(inner)
        self.values: dict[str, Any] = {**outer, **inner} if inner else outer
        if inner and inner.get("tie_word_embeddings") is None and outer.get("tie_word_embeddings") is not None:
            self.values["tie_word_embeddings"] = outer["tie_word_embeddings"]
        self.architectures = outer.get("architectures") or self.values.get("architectures")
        listed = self.values.get("layers_block_type")
        if isinstance(listed, list) and self.values.get("num_hidden_layers") is None:
            self.values["num_hidden_layers"] = len(listed)
        kind = self.values.get("model_type")
        self.kind = kind if isinstance(kind, str) else ""
        self.defaults = class_defaults().get(SAME_AS.get(self.kind, self.kind), {})

    def error(self, key: str, rule: str) -> UserError:
        """Return the error for a bad value of `key`."""
        return UserError(f"{self.where}: {key} is {self.values.get(key)!r}, but must be {rule}")

    def raw(self, *keys: str) -> Any:
        """Return the value of the first of `keys` that is there and not null; the family's default otherwise."""
        for key in keys:
            if self.values.get(key) is not None:
                return self.values[key]
        for key in keys:
            if key not in self.values and self.defaults.get(key) is not None:
                return self.defaults[key]
        return None

    def _names(self, name: str) -> tuple[str, ...]:
        return ALIASES.get(name, (name,))

    def _used(self, names: Sequence[str]) -> str:
        return next((key for key in names if self.values.get(key) is not None), names[0])

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """Return a whole number; raises UserError, naming the key, where it is missing or none."""
        found = self.optional(name, minimum=minimum)
        if found is None:
            if default is None:
                raise UserError(f"{self.where}: {self._names(name)[0]} is missing")
            return default
        return found

    def optional(self, name: str, *, minimum: int = 1) -> int | None:
        """Return a whole number, or None where there is none; raises UserError for anything else."""
        names = self._names(name)
        value = self.raw(*names)
        return None if value is None else self.whole(value, self._used(names), minimum=minimum)

    def whole(self, value: object, key: str, *, minimum: int = 1) -> int:
        """Return `value`, found under `key`, as a whole number; raises UserError where it is none."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < MOST:
            raise self.error(key, f"a whole number of at least {minimum}")
        return value

    def largest(self, name: str) -> int | None:
        """Return a whole number, the greatest one of a list, or None where there is none; raises UserError."""
        names = self._names(name)
        value = self.raw(*names)
        if not isinstance(value, list):
            return self.optional(name, minimum=0)
        return max((self.whole(one, self._used(names), minimum=0) for one in value), default=None)

    def entry(self, name: str, index: int) -> int | None:
        """Return a whole number, or that of one layer where there is a list of them; None where there is none."""
        names = self._names(name)
        value = self.raw(*names)
        if not isinstance(value, list):
            return self.optional(name)
        return None if not value else self.whole(value[min(index, len(value) - 1)], self._used(names))

    def inner(self, part: str, key: str, *, minimum: int = 1) -> int | None:
        """Return a whole number of the mapping `part`, None where it is absent; raises UserError for another value."""
        value = self.part(part).get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < MOST:
            raise UserError(
                f"{self.where}: {part}.{key} is {value!r}, but must be a whole number of at least {minimum}"
            )
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false; raises UserError for anything else."""
        value = self.raw(*self._names(name))
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(self._used(self._names(name)), "true or false")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number; raises UserError for anything else."""
        value = self.raw(*self._names(name))
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
            raise self.error(self._used(self._names(name)), "a number of at least 0")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        """Return a text; raises UserError for anything else."""
        value = self.raw(*self._names(name))
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(self._used(self._names(name)), "a text")
        return value

    def listed(self, name: str) -> list[Any] | None:
        """Return a list, or None where there is none; raises UserError for anything else."""
        value = self.raw(*self._names(name))
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.error(self._used(self._names(name)), "a list")
        return list(value)

    def part(self, name: str) -> dict[str, Any]:
        """Return a mapping, empty where there is none; raises UserError for anything else."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.error(name, "a mapping")
        return dict(value)


SAME_AS: Mapping[str, str] = {
    "kimi_k2": "deepseek_v3",
    "deepseek_mtp": "deepseek_v3",
    "minimax_m3": "minimax_m3_vl_text",
    "mimo": "qwen2",
    "exaone": "llama",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_moe": "qwen3_moe",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "mistral3": "mistral",
    "pixtral": "mistral",
}
"""Model types whose absent keys mean what they mean in another one."""
