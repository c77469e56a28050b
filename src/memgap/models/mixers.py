"""The part of a layer that mixes tokens: attention in its forms, and the recurrences that stand in for it.

Each function reads a family's keys and returns the matrices, the further parameters, and the attention or state.
Sizes follow the published model classes: GQA and its kin, multi-head latent attention (DeepSeek-V2, arXiv 2405.04434),
Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060), gated delta networks (arXiv 2412.06464) and Kimi's form of them
(arXiv 2510.26692), the RG-LRU of Griffin (arXiv 2402.19427), short convolutions, and lightning attention.
"""

from dataclasses import dataclass

from memgap.errors import UserError
from memgap.models.blocks import ROW, WHOLE, Attention, Linear, State
from memgap.models.keys import Keys
from memgap.models.traits import Traits

FULL, SLIDING, CHUNKED = "full", "sliding", "chunked"
FLOAT32_BYTES = 4.0


@dataclass(frozen=True)
class Mixer:
    """What a mixer consists of; see `memgap.models.blocks.Block`."""

    matrices: tuple[Linear, ...]
    others: int
    attention: Attention | None = None
    state: State | None = None


def bias_of(keys: Keys, given: bool | str) -> bool:
    """Return whether there is a bias: as the traits say, or as the key that they name says."""
    return given if isinstance(given, bool) else keys.flag(given, False)


def attention(keys: Keys, traits: Traits, reach: str, index: int) -> Mixer:
    """Return ordinary attention of a layer; raises UserError for widths that do not fit."""
    hidden, heads = keys.integer("hidden"), _heads(keys, reach)
    kv_heads = _kv_heads(keys, heads, reach)
    width, value_width = _widths(keys, hidden, heads, reach)
    if heads % kv_heads:
        raise UserError(
            f"{keys.where}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )
    query, key, value = heads * width, kv_heads * width, kv_heads * value_width
    same = keys.flag("attention_k_eq_v") and reach == FULL
    gates = query if traits.gate == "query" else 0
    cached = _caches(keys, index)
    kv_outputs = 0 if not cached else key if same else key + value
    matrices = [
        Linear(
            "qkv",
            query + gates + kv_outputs,
            hidden,
            bias_of(keys, traits.qkv_bias),
            names=("self_attn.q_proj", "self_attn.qkv_proj", "attn.c_attn", "mixer.q_proj"),
            kv_outputs=kv_outputs,
        ),
        Linear(
            "out",
            hidden,
            heads * value_width,
            bias_of(keys, traits.out_bias),
            names=("self_attn.o_proj", "attn.c_proj", "mixer.o_proj"),
            split=ROW,
        ),
    ]
    if traits.gate == "own":
        matrices.append(Linear("gate", heads * value_width, hidden, names=("self_attn.gate_proj",)))
    others = _qk_norm(keys, traits, heads, kv_heads if cached else 0, width)
    if _sinks(keys, traits, reach):
        others += heads
    if keys.kind == "bitnet":
        others += hidden
    rotary = 0 if not traits.rotary else int(width * keys.number("partial_rotary_factor", 1.0))
    window = _window(keys, reach)
    return Mixer(
        tuple(matrices),
        others,
        Attention(heads, kv_heads, width, value_width, window, rotary_width=rotary, caches=cached),
    )


def _heads(keys: Keys, reach: str) -> int:
    swa = keys.optional("swa_num_attention_heads") if reach == SLIDING else None
    return swa or keys.integer("heads")


def _kv_heads(keys: Keys, heads: int, reach: str) -> int:
    if reach == SLIDING and keys.optional("swa_num_key_value_heads"):
        return keys.integer("swa_num_key_value_heads")
    if reach == FULL and keys.flag("attention_k_eq_v") and keys.optional("num_global_key_value_heads"):
        return keys.integer("num_global_key_value_heads")
    if keys.kind in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if keys.flag("new_decoder_architecture"):
            return keys.integer("kv_heads", heads)
        return 1 if keys.flag("multi_query") else heads
    if keys.kind == "gpt_bigcode":
        return 1 if keys.flag("multi_query") else heads
    if keys.kind == "chatglm" and not keys.flag("multi_query_attention"):
        return heads
    if keys.kind in ("mpt", "dbrx"):
        return keys.inner("attn_config", "kv_n_heads") or heads
    return keys.integer("kv_heads", heads)


def _widths(keys: Keys, hidden: int, heads: int, reach: str) -> tuple[int, int]:
    """Return the width of a head's key and of its value."""
    width = keys.optional("head_dim")
    if reach == SLIDING and keys.optional("swa_head_dim"):
        width = keys.integer("swa_head_dim")
    if reach == FULL and keys.kind.startswith("gemma4"):
        width = keys.integer("global_head_dim", 512)
    if width is None:
        if hidden % heads:
            raise UserError(f"{keys.where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        width = hidden // heads
    value = keys.optional("swa_v_head_dim") if reach == SLIDING else None
    if value is None and keys.kind == "mimo_v2_flash":
        value = keys.optional("v_head_dim")
    return width, value or width


def _caches(keys: Keys, index: int) -> bool:
    """Return whether a layer keeps keys and values of its own: the last ones may share those of earlier layers."""
    shared = keys.optional("num_kv_shared_layers", minimum=0) or 0
    return index < keys.integer("layers") - shared


def _qk_norm(keys: Keys, traits: Traits, heads: int, kv_heads: int, width: int) -> int:
    """Return the parameters of the norms of queries and keys."""
    if traits.qk_norm_key and not keys.flag(traits.qk_norm_key, traits.qk_norm_default):
        return 0
    each = {"": 0, "head": width, "head with shift": 2 * width}
    if traits.qk_norm in each:
        return each[traits.qk_norm] * (2 if kv_heads else 1)
    return (heads + kv_heads) * width


def _sinks(keys: Keys, traits: Traits, reach: str) -> bool:
    if keys.kind == "mimo_v2_flash":
        key, default = (
            ("add_swa_attention_sink_bias", True) if reach == SLIDING else ("add_full_attention_sink_bias", False)
        )
        return keys.flag(key, default)
    return traits.sinks


def _window(keys: Keys, reach: str) -> int | None:
    if reach == SLIDING:
        return keys.optional("window") or keys.optional("window_size")
    return keys.optional("attention_chunk_size") if reach == CHUNKED else None


def latent_attention(keys: Keys, index: int) -> Mixer:
    """Return multi-head latent attention, with an indexer where the config names one."""
    hidden, heads = keys.integer("hidden"), keys.integer("heads")
    rank, query_rank = keys.integer("kv_lora_rank"), keys.optional("q_lora_rank")
    plain, rotary = keys.integer("qk_nope_head_dim", minimum=0), keys.integer("qk_rope_head_dim", minimum=0)
    value = keys.integer("v_head_dim")
    query = heads * (plain + rotary)
    bias = keys.flag("attention_bias")
    matrices = []
    if query_rank is None:
        matrices.append(Linear("q", query, hidden, names=("self_attn.q_proj",)))
    else:
        matrices.append(Linear("q_a", query_rank, hidden, bias, names=("self_attn.q_a_proj",), split=WHOLE))
        matrices.append(Linear("q_b", query, query_rank, names=("self_attn.q_b_proj",)))
    matrices += [
        Linear("kv_a", rank + rotary, hidden, bias, names=("self_attn.kv_a_proj_with_mqa",), split=WHOLE),
        Linear("kv_b", heads * (plain + value), rank, names=("self_attn.kv_b_proj",)),
        Linear("out", hidden, heads * value, bias, names=("self_attn.o_proj",), split=ROW),
    ]
    others = rank + (query_rank or 0)
    index_heads, index_width, picked = 0, 0, keys.optional("index_topk")
    if picked is not None:
        index_heads, index_width = keys.integer("index_n_heads"), keys.integer("index_head_dim")
        kinds = keys.listed("indexer_types")
        if kinds is None or index >= len(kinds) or kinds[index] != "shared":
            matrices += [
                Linear(
                    "index_q",
                    index_heads * index_width,
                    query_rank or hidden,
                    names=("self_attn.indexer.wq_b",),
                    split=WHOLE,
                ),
                Linear("index_k", index_width, hidden, names=("self_attn.indexer.wk",), split=WHOLE),
                Linear("index_weights", index_heads, hidden, names=("self_attn.indexer.weights_proj",), split=WHOLE),
            ]
            others += 2 * index_width
        else:
            index_heads, index_width = 0, 0
    return Mixer(
        tuple(matrices),
        others,
        Attention(
            heads,
            heads,
            plain + rotary,
            value,
            latent_width=rank + rotary,
            latent_value_width=rank,
            rotary_width=rotary,
            sparse_tokens=picked,
            index_heads=index_heads,
            index_width=index_width,
        ),
    )


def mamba2(keys: Keys) -> Mixer:
    """Return a Mamba-2 layer's mixer, by the keys of Bamba, Granite, Falcon-H1, Nemotron-H or Mamba-2 itself."""
    hidden = keys.integer("hidden")
    if keys.kind == "nemotron_h":
        heads, groups, state = keys.integer("mamba_num_heads"), keys.integer("n_groups"), keys.integer("ssm_state_size")
        inner, bias = heads * keys.integer("mamba_head_dim"), keys.flag("mamba_proj_bias")
    elif keys.kind == "mamba2":
        heads, groups, state = keys.integer("heads"), keys.integer("n_groups"), keys.integer("state_size")
        inner, bias = int(keys.number("expand", 2) * hidden), keys.flag("use_bias")
    else:
        heads, groups = keys.integer("mamba_n_heads"), keys.integer("mamba_n_groups", 1)
        state, bias = keys.integer("mamba_d_state"), keys.flag("mamba_proj_bias")
        inner = (keys.optional("mamba_d_ssm") if keys.kind == "falcon_h1" else None) or _expanded(keys, hidden)
    own = keys.kind in ("nemotron_h", "mamba2")
    kernel = keys.integer("conv_kernel" if own else "mamba_d_conv")
    conv_bias = keys.flag("use_conv_bias" if own else "mamba_conv_bias", True)
    gated_norm = keys.kind != "falcon_h1" or keys.flag("mamba_rms_norm")
    mixed = inner + 2 * groups * state
    others = mixed * (kernel + (1 if conv_bias else 0)) + 3 * heads + (inner if gated_norm else 0)
    flop = 5.0 * inner * state + 2.0 * mixed * kernel
    return Mixer(
        (
            Linear("ssm_in", inner + mixed + heads, hidden, bias, names=("mamba.in_proj", "mixer.in_proj")),
            Linear("ssm_out", hidden, inner, bias, names=("mamba.out_proj", "mixer.out_proj"), split=ROW),
        ),
        others,
        state=State("mamba2", inner * state, mixed * (kernel - 1), flop, FLOAT32_BYTES),
    )


def _expanded(keys: Keys, hidden: int) -> int:
    return int(keys.number("mamba_expand", 2) * hidden)


def mamba1(keys: Keys) -> Mixer:
    """Return a Mamba layer's mixer, by the keys of Jamba or of Mamba itself."""
    hidden, jamba = keys.integer("hidden"), keys.kind == "jamba"
    if jamba:
        inner, state, kernel = _expanded(keys, hidden), keys.integer("mamba_d_state"), keys.integer("mamba_d_conv")
        rank, conv_bias, bias = "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias"
    else:
        inner = keys.optional("intermediate_size") or int(keys.number("expand", 2) * hidden)
        state, kernel = keys.integer("state_size"), keys.integer("conv_kernel")
        rank, conv_bias, bias = "time_step_rank", "use_conv_bias", "use_bias"
    steps = -(-hidden // 16) if isinstance(keys.raw(rank), str) else keys.integer(rank, -(-hidden // 16))
    others = inner * (kernel + (1 if keys.flag(conv_bias, True) else 0)) + inner * state + inner
    others += steps + 2 * state if jamba else 0
    flop = 7.0 * inner * state + 2.0 * inner * kernel
    return Mixer(
        (
            Linear("ssm_in", 2 * inner, hidden, keys.flag(bias), names=("mamba.in_proj", "mixer.in_proj")),
            Linear("ssm_x", steps + 2 * state, inner, names=("mamba.x_proj", "mixer.x_proj"), split=ROW),
            Linear("ssm_dt", inner, steps, True, names=("mamba.dt_proj", "mixer.dt_proj")),
            Linear("ssm_out", hidden, inner, keys.flag(bias), names=("mamba.out_proj", "mixer.out_proj"), split=ROW),
        ),
        others,
        state=State("mamba", inner * state, inner * (kernel - 1), flop, FLOAT32_BYTES),
    )


def gated_delta(keys: Keys) -> Mixer:
    """Return a gated delta network, by the keys of Qwen3-Next, Qwen3.5 or OLMo-hybrid."""
    hidden = keys.integer("hidden")
    key_heads, value_heads = keys.integer("linear_num_key_heads"), keys.integer("linear_num_value_heads")
    key_width, value_width = keys.integer("linear_key_head_dim"), keys.integer("linear_value_head_dim")
    kernel = keys.integer("linear_conv_kernel_dim")
    key, value = key_heads * key_width, value_heads * value_width
    mixed = 2 * key + value
    elements = value_heads * key_width * value_width
    return Mixer(
        (
            Linear("linear_in", mixed + value, hidden, names=("linear_attn.in_proj_qkvz", "linear_attn.in_proj_qkv")),
            Linear("linear_gates", 2 * value_heads, hidden, names=("linear_attn.in_proj_ba", "linear_attn.in_proj_b")),
            Linear("linear_out", hidden, value, names=("linear_attn.out_proj",), split=ROW),
        ),
        mixed * kernel + 2 * value_heads + value_width,
        state=State(
            "gated delta", elements, mixed * (kernel - 1), 8.0 * elements + 2.0 * mixed * kernel, FLOAT32_BYTES
        ),
    )


def kimi_delta(keys: Keys) -> Mixer:
    """Return Kimi's delta attention, by the keys of Kimi-Linear (`linear_attn_config` or its flat form)."""
    hidden, part = keys.integer("hidden"), "linear_attn_config"
    heads = keys.inner(part, "num_heads") or keys.integer("linear_num_heads")
    width = keys.inner(part, "head_dim") or keys.integer("linear_head_dim")
    kernel = keys.inner(part, "short_conv_kernel_size") or keys.integer("linear_conv_kernel_dim")
    inner = heads * width
    elements = heads * width * width
    return Mixer(
        (
            Linear("linear_in", 3 * inner, hidden, names=("self_attn.q_proj",)),
            Linear("linear_gates", 2 * width + heads, hidden, names=("self_attn.f_a_proj",), split=WHOLE),
            Linear("linear_gates_b", 2 * inner, width, names=("self_attn.f_b_proj",)),
            Linear("linear_out", hidden, inner, names=("self_attn.o_proj",), split=ROW),
        ),
        3 * inner * kernel + inner + heads + width,
        state=State(
            "kimi delta", elements, 3 * inner * (kernel - 1), 8.0 * elements + 6.0 * inner * kernel, FLOAT32_BYTES
        ),
    )


def lightning(keys: Keys) -> Mixer:
    """Return MiniMax's lightning attention."""
    hidden, heads = keys.integer("hidden"), keys.integer("heads")
    width = keys.optional("head_dim") or hidden // heads
    inner = heads * width
    elements = heads * width * width
    return Mixer(
        (
            Linear("linear_in", 3 * inner, hidden, names=("self_attn.qkv_proj",)),
            Linear("linear_gate", inner, hidden, names=("self_attn.output_gate",)),
            Linear("linear_out", hidden, inner, names=("self_attn.out_proj",), split=ROW),
        ),
        inner,
        state=State("lightning", elements, 0, 5.0 * elements, FLOAT32_BYTES),
    )


def short_convolution(keys: Keys) -> Mixer:
    """Return LFM2's gated short convolution."""
    hidden, kernel, bias = keys.integer("hidden"), keys.integer("conv_L_cache"), keys.flag("conv_bias")
    return Mixer(
        (
            Linear("conv_in", 3 * hidden, hidden, bias, names=("conv.in_proj",)),
            Linear("conv_out", hidden, hidden, bias, names=("conv.out_proj",), split=ROW),
        ),
        hidden * kernel + (hidden if bias else 0),
        state=State("convolution", 0, hidden * (kernel - 1), 2.0 * hidden * kernel),
    )


def gated_recurrence(keys: Keys) -> Mixer:
    """Return the RG-LRU of RecurrentGemma."""
    hidden, heads = keys.integer("hidden"), keys.integer("heads")
    width, kernel = keys.integer("lru_width", hidden), keys.integer("conv1d_width")
    block = width // heads
    return Mixer(
        (
            Linear("linear_in", 2 * width, hidden, True, names=("temporal_block.linear_x",)),
            Linear("linear_gates", 2 * width, block, True, names=("temporal_block.rg_lru",)),
            Linear("linear_out", hidden, width, True, names=("temporal_block.linear_out",), split=ROW),
        ),
        width * kernel + width + width,
        state=State("RG-LRU", width, width * (kernel - 1), 8.0 * width + 2.0 * width * kernel, FLOAT32_BYTES),
    )
