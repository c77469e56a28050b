"""From a decoder's config.json to the description of its layers, by what the keys say.

A model type that is known adds what no key says (see `memgap.models.traits`). One that is not known is read as a
Llama-like decoder as long as every key that could change its shape is understood; otherwise the key is named.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from memgap.errors import UserError
from memgap.models import mixers
from memgap.models.blocks import ROW, WHOLE, Block, Decoder, Experts, Linear
from memgap.models.fields import suggest
from memgap.models.formats import EXPERT, HEAD, ROUTER, Quantization
from memgap.models.keys import ALIASES, Keys
from memgap.models.mixers import CHUNKED, FULL, SLIDING, Mixer, bias_of
from memgap.models.traits import LLAMA, NORM_PARAMETERS, Traits, known_kinds, traits_of
from memgap.models.vision import vision_parameters

LINEAR_ATTENTION, MAMBA, CONVOLUTION, RECURRENT, FEED_FORWARD, EXPERTS_ONLY = (
    "linear",
    "mamba",
    "conv",
    "recurrent",
    "ffn",
    "experts",
)
_TYPES: Mapping[str, str] = {
    "full_attention": FULL,
    "indexed_attention": FULL,
    "deepseek_sparse_attention": FULL,
    "attention": FULL,
    "global": FULL,
    "sliding_attention": SLIDING,
    "local": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": LINEAR_ATTENTION,
    "kda": LINEAR_ATTENTION,
    "mamba": MAMBA,
    "conv": CONVOLUTION,
    "recurrent": RECURRENT,
    "mlp": FEED_FORWARD,
    "moe": EXPERTS_ONLY,
}
MOST_LAYERS = 4096
_MAMBA_KINDS = ("bamba", "granitemoehybrid", "jamba", "nemotron_h", "falcon_h1")
_ALL_SLIDE = ("mistral", "phi3", "starcoder2", "mixtral", "phimoe")
_REFUSED: Mapping[str, str] = {
    "cross_attention_layers": "cross-attention to another encoder",
    "hc_mult": "hyper-connections",
    "compress_rates": "compressed attention of several rates",
    "zero_expert_num": "experts without weights",
    "relative_attention_num_buckets": "relative attention",
    "num_mem_blocks": "shared blocks with adapters",
    "adapter_rank": "shared blocks with adapters",
    "sparse_attention_config": "block-sparse attention with an indexer",
    "attn_res_block_size": "attention residuals",
}
"""Keys of shapes that are not described here, and what they stand for."""
_REFUSED_KINDS: Mapping[str, str] = {
    "jetmoe": "experts in its attention",
    "xlstm": "recurrent cells of its own",
    "rwkv": "recurrent cells of its own",
    "deepseek_v4": "compressed attention of several rates",
}
_HARMLESS = re.compile(
    r"rope|rotary|token|dropout|pdrop|eps|init|scal|multiplier|softcap|soft_cap|jitter|aux|loss|label|use_cache|torch|dtype"
    r"|version|auto_map|_name_or_path|temperature|top_p|pad|norm_topk|topk_method|topk_group|n_group|num_expert_group|score"
    r"|scoring|route|routed|theta|mscale|max_length|min_length|beam|generat|output_|return_|pruned|finetuning|prefix|bos|eos"
    r"|architectures|model_type|vision|audio|image|video|mtp|nextn|pretraining|logit|sep|problem|tf_|torchscript|task|chunk_size"
    r"|penalty|diversity|bad_words|is_decoder|is_encoder|cross_attention|encoder_no|tie|tokenizer|early_stopping|ep_size|seq_aux"
    r"|unk|add_|remove_|typical|exponential|forced|suppress|num_return|do_sample|transformers|quantization|attn_impl|flash|fused"
    r"|alpha|beta|type_vocab|use_bidirectional|initial_context|truncat|swiglu_limit|residual|layerdrop|layer_types|mup|language"
)


def describe(config: Mapping[str, Any], where: str, quantization: Quantization | None = None) -> Decoder:
    """Return what a config.json content describes.

    Raises UserError, naming the key, for a shape that is not described here and for values that contradict each other.
    """
    keys = Keys(config, where)
    traits = _traits(keys)
    layers = keys.integer("layers")
    if layers > MOST_LAYERS:
        raise UserError(f"{where}: num_hidden_layers is {layers}, but must be at most {MOST_LAYERS}")
    if keys.kind == "nemotron-nas":
        made = [searched_layer(keys, traits, index) for index in range(layers)]
    else:
        made = [_layer(keys, traits, kind, index) for index, kind in enumerate(layer_kinds(keys, traits, layers))]
    blocks = _grouped([_with_formats(one, index, quantization) for index, one in enumerate(made)])
    tower, uncounted = vision_parameters(config, keys.integer("hidden"))
    decoder = _around(keys, traits, blocks, quantization)
    around = {**decoder.around, "vision tower": tower} if tower else decoder.around
    return dataclasses.replace(decoder, around=around, uncounted=uncounted)


def _traits(keys: Keys) -> Traits:
    _refuse(keys)
    traits = traits_of(keys.kind)
    if traits is not None:
        return _adapted(keys, traits)
    if keys.kind in _REFUSED_KINDS:
        raise UserError(
            f"{keys.where}: model_type {keys.kind!r} has {_REFUSED_KINDS[keys.kind]}, which is not described here"
        )
    if not keys.kind:
        raise UserError(f"{keys.where}: model_type is missing")
    known = {name for names in ALIASES.values() for name in names}
    known |= {name for row in (LLAMA,) for name in (row.qkv_bias, row.out_bias, row.ffn_bias) if isinstance(name, str)}
    for key, value in keys.values.items():
        if value is None or key in known or isinstance(value, bool) or not isinstance(value, int | float | list):
            continue
        if not _HARMLESS.search(key) and key not in ("mlp_only_layers", "decoder_sparse_step", "moe_layer_freq"):
            raise UserError(
                f"{keys.where}: model_type {keys.kind!r} is not known, and its key {key} may change the shape "
                f"({suggest(keys.kind, known_kinds())})"
            )
    activation = keys.text("activation", "")
    if activation not in ("", "silu", "swiglu", "swish"):
        raise UserError(
            f"{keys.where}: model_type {keys.kind!r} is not known, and hidden_act {activation or None!r} does not tell "
            f"whether its feed-forward block has a gate ({suggest(keys.kind, known_kinds())})"
        )
    return LLAMA


def _refuse(keys: Keys) -> None:
    for key, value in keys.values.items():
        if key in _REFUSED and value not in (None, [], {}, 0, False):
            raise UserError(f"{keys.where}: {key} stands for {_REFUSED[key]}, which is not described here")
    if keys.values.get("is_encoder_decoder") is True:
        raise UserError(f"{keys.where}: is_encoder_decoder is true, but only decoders are described here")
    for key in ("encoder_layers", "num_encoder_layers", "d_kv"):
        if keys.values.get(key):
            raise UserError(f"{keys.where}: {key} belongs to an encoder, but only decoders are described here")


def _adapted(keys: Keys, traits: Traits) -> Traits:
    """Return the traits with what depends on further keys."""
    if keys.kind in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if keys.flag("new_decoder_architecture"):
            return dataclasses.replace(traits, norms=min(keys.integer("num_ln_in_parallel_attn", 2), 2))
        return dataclasses.replace(traits, norms=1 if keys.flag("parallel_attn") else 2)
    if keys.kind == "stablelm" and keys.flag("use_parallel_residual"):
        return dataclasses.replace(traits, norms=1)
    if keys.kind == "opt":
        bias = keys.flag("enable_bias", True)
        return dataclasses.replace(
            traits,
            qkv_bias=bias,
            out_bias=bias,
            ffn_bias=bias,
            norm="layer" if keys.flag("layer_norm_elementwise_affine", True) else "none",
            final_norm=keys.flag("do_layer_norm_before", True) and not keys.flag("_remove_final_layer_norm"),
        )
    if keys.kind == "mpt" and keys.raw("no_bias") is False:
        return dataclasses.replace(traits, norm="layer", qkv_bias=True, out_bias=True, ffn_bias=True)
    if keys.kind == "hyperclovax" and keys.flag("use_post_norm", True):
        return dataclasses.replace(traits, norms=4)
    if keys.kind == "starcoder2" and keys.text("norm_type", "layer_norm") != "layer_norm":
        return dataclasses.replace(traits, norm="rms")
    return traits


def layer_kinds(keys: Keys, traits: Traits, layers: int) -> list[str]:
    """Return what mixes the tokens in each layer; raises UserError for a pattern that is not known."""
    given = keys.listed("layer_types") or keys.listed("layers_block_type")
    if given is None and keys.kind == "recurrent_gemma":
        own = keys.listed("block_types") or ["recurrent", "recurrent", "attention"]
        return [SLIDING if own[index % len(own)] == "attention" else RECURRENT for index in range(layers)]
    if given is not None:
        unknown = [one for one in given if not isinstance(one, str) or one not in _TYPES]
        if unknown:
            raise UserError(f"{keys.where}: layer_types has {unknown[0]!r}, which is not described here")
        if len(given) < layers:
            raise UserError(f"{keys.where}: layer_types has {len(given)} entries for {layers} layers")
        named = [_TYPES[one] for one in given[:layers]]
        return [MAMBA if one == LINEAR_ATTENTION and keys.kind in _MAMBA_KINDS else one for one in named]
    pattern = keys.raw("hybrid_override_pattern")
    if isinstance(pattern, str):
        letters = {"M": MAMBA, "*": FULL, "-": FEED_FORWARD, "E": EXPERTS_ONLY}
        unknown = [one for one in pattern if one not in letters]
        if unknown or len(pattern) < layers:
            raise UserError(
                f"{keys.where}: hybrid_override_pattern is {pattern!r}, but must be {layers} of M, *, - and E"
            )
        return [letters[one] for one in pattern[:layers]]
    own_rule = _KIND_RULES.get(keys.kind)
    if own_rule is not None:
        return [own_rule(keys, index) for index in range(layers)]
    return _windows(keys, traits, layers)


def _windows(keys: Keys, traits: Traits, layers: int) -> list[str]:
    swa = keys.listed("hybrid_layer_pattern")
    if swa is not None:
        return [SLIDING if index < len(swa) and swa[index] == 1 else FULL for index in range(layers)]
    if keys.optional("window") is None:
        return [FULL] * layers
    every = keys.raw(*ALIASES["window_pattern"])
    if isinstance(every, str) and every:
        return [SLIDING if every[index % len(every)] == "L" else FULL for index in range(layers)]
    if not isinstance(every, int) or isinstance(every, bool):
        every = traits.window_every or keys.optional("global_attn_every_n_layers") or _EVERY.get(keys.kind, 0)
    if every:
        return [FULL if (index + 1) % every == 0 else SLIDING for index in range(layers)]
    if keys.raw("use_sliding_window") is not None:
        if not keys.flag("use_sliding_window"):
            return [FULL] * layers
        first = keys.optional("max_window_layers", minimum=0)
        return [SLIDING if first is None or index >= first else FULL for index in range(layers)]
    known = traits_of(keys.kind) is not None
    return [SLIDING if keys.kind in _ALL_SLIDE or not known else FULL] * layers


_EVERY = {"gemma2": 2, "vaultgemma": 2, "olmo3": 4, "afmoe": 4, "gemma4_text": 6, "granite_swa": 4}


def _kimi_linear(keys: Keys, index: int) -> str:
    part = keys.part("linear_attn_config")
    full = part.get("full_attn_layers")
    if isinstance(full, list):
        return FULL if index + 1 in full else LINEAR_ATTENTION
    return FULL if (index + 1) % 4 == 0 or index + 1 == keys.integer("layers") else LINEAR_ATTENTION


def _llama4(keys: Keys, index: int) -> str:
    rope = keys.listed("no_rope_layers")
    if rope and index < len(rope):
        return CHUNKED if rope[index] else FULL
    return FULL if (index + 1) % (keys.optional("no_rope_layer_interval") or 4) == 0 else CHUNKED


def _jamba(keys: Keys, index: int) -> str:
    return FULL if index % keys.integer("attn_layer_period") == keys.integer("attn_layer_offset", minimum=0) else MAMBA


def _minimax(keys: Keys, index: int) -> str:
    listed = keys.listed("attn_type_list")
    if listed is not None:
        return FULL if index < len(listed) and listed[index] == 1 else LINEAR_ATTENTION
    return FULL if (index + 1) % 2 else LINEAR_ATTENTION


def _lfm2(keys: Keys, index: int) -> str:
    full = keys.listed("full_attn_idxs")
    return FULL if full is None or index in full else CONVOLUTION


def _gpt_neo(keys: Keys, index: int) -> str:
    return FULL if index % 2 == 0 else SLIDING


_KIND_RULES: Mapping[str, Any] = {
    "kimi_linear": _kimi_linear,
    "llama4": _llama4,
    "llama4_text": _llama4,
    "jamba": _jamba,
    "bamba": lambda keys, index: FULL if index in (keys.listed("attn_layer_indices") or []) else MAMBA,
    "granitemoehybrid": lambda _keys, _index: MAMBA,
    "minimax": _minimax,
    "minimax_m1": _minimax,
    "minimax_text_01": _minimax,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2,
    "mamba": lambda _keys, _index: MAMBA,
    "mamba2": lambda _keys, _index: MAMBA,
    "falcon_mamba": lambda _keys, _index: MAMBA,
    "gpt_neo": _gpt_neo,
    **{
        kind: lambda keys, index: (
            FULL if (index + 1) % (keys.optional("full_attention_interval") or 4) == 0 else LINEAR_ATTENTION
        )
        for kind in ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "olmo_hybrid")
    },
}


def _layer(keys: Keys, traits: Traits, kind: str, index: int) -> Block:
    hidden = keys.integer("hidden")
    mixer = _mixer(keys, traits, kind, index)
    norms, others, experts, ffn, matrices = traits.norms, 0, None, 0, list(mixer.matrices)
    alone = keys.kind in ("mamba", "mamba2", "falcon_mamba") or (keys.kind == "nemotron_h" and kind in (FULL, MAMBA))
    if keys.kind == "olmo_hybrid":
        norms = 2
    if not alone:
        routed = kind == EXPERTS_ONLY or (kind != FEED_FORWARD and has_experts(keys, index))
        if routed:
            experts, extra, others = _experts(keys, traits)
            matrices += extra
        if not routed or keys.kind.startswith("gemma4"):
            ffn = _dense_width(keys, index)
            matrices += _feed_forward("", traits, ffn, hidden, bias_of(keys, traits.ffn_bias)) if ffn else []
            if keys.kind == "bitnet":
                others += ffn
        if routed and keys.kind.startswith("gemma4"):
            norms += 3
            others += hidden + keys.integer("experts")
    matrices += _per_layer_input(keys)
    norms += 1 if keys.optional("hidden_size_per_layer_input", minimum=0) else 0
    if copies := keys.optional("altup_num_inputs"):
        matrices += _alternating(keys, copies)
        norms += 2
        others += hidden + copies**2 + copies**3
    width = NORM_PARAMETERS[traits.norm]
    if keys.kind == "apertus":
        others += 2
    if keys.kind == "axk1" and experts is not None:
        norms += 1
    return Block(
        name=f"{kind}{'+experts' if experts else ''}",
        count=1,
        matrices=tuple(matrices),
        others=mixer.others + others + norms * hidden * width,
        norms=norms,
        attention=mixer.attention,
        state=mixer.state,
        experts=experts,
        ffn_size=ffn,
        gated=traits.gated,
    )


def searched_layer(keys: Keys, traits: Traits, index: int) -> Block:
    """Return a layer of a plan that a search found (Nemotron's `block_configs`): either half may be left out, or be one
    matrix; groups of heads and widths differ.
    """
    plan = keys.listed("block_configs") or []
    entry = plan[index] if index < len(plan) else None
    halves = [entry.get(name) for name in ("attention", "ffn")] if isinstance(entry, Mapping) else []
    where, given = f"{keys.where}, layer {index + 1}", [one for one in halves if isinstance(one, Mapping)]
    if len(given) != 2:
        raise UserError(f"{keys.where}: block_configs has no attention and ffn for layer {index + 1}")
    mixing, feeding = (Keys({**keys.values, **one}, where) for one in given)
    hidden, matrices, others, norms, attention, ffn = keys.integer("hidden"), list[Linear](), 0, 0, None, 0
    for own, name in ((mixing, "attention"), (feeding, "ffn")):
        if own.flag("no_op"):
            continue
        norms += 1
        if own.flag("replace_with_linear"):
            matrices.append(Linear(f"{name}_map", hidden, hidden, split=WHOLE))
        elif own is mixing:
            group, heads = own.integer("n_heads_in_group"), own.integer("heads")
            mixer = mixers.attention(
                Keys({**own.values, "num_key_value_heads": heads // group}, own.where), traits, FULL, 0
            )
            matrices += mixer.matrices
            others, attention = mixer.others, mixer.attention
        else:
            share = own.number("ffn_mult", 0.0)
            ffn = 256 * -(-int(2 * share * hidden / 3) // 256) if share else own.integer("ffn")
            matrices += _feed_forward("", traits, ffn, hidden, bias_of(keys, traits.ffn_bias))
    return Block(
        "searched",
        1,
        tuple(matrices),
        others + norms * hidden,
        norms=norms,
        attention=attention,
        ffn_size=ffn,
        gated=True,
    )


def _mixer(keys: Keys, traits: Traits, kind: str, index: int) -> Mixer:
    if kind in (FEED_FORWARD, EXPERTS_ONLY):
        return Mixer((), 0)
    if kind == LINEAR_ATTENTION:
        if keys.kind in ("minimax", "minimax_m1", "minimax_text_01"):
            return mixers.lightning(keys)
        if keys.kind == "kimi_linear":
            return mixers.kimi_delta(keys)
        return mixers.gated_delta(keys)
    if kind == MAMBA:
        return mixers.mamba1(keys) if keys.kind in ("jamba", "mamba", "falcon_mamba") else mixers.mamba2(keys)
    if kind == CONVOLUTION:
        return mixers.short_convolution(keys)
    if kind == RECURRENT:
        return mixers.gated_recurrence(keys)
    if keys.optional("kv_lora_rank") and keys.raw("qk_rope_head_dim") is not None:
        return mixers.latent_attention(keys, index)
    found = mixers.attention(keys, traits, kind, index)
    if keys.kind == "falcon_h1":
        ssm = mixers.mamba2(keys)
        return Mixer(found.matrices + ssm.matrices, found.others + ssm.others, found.attention, ssm.state)
    return found


def has_experts(keys: Keys, index: int) -> bool:
    """Tell whether a layer's feed-forward block is a mixture of experts; raises UserError for bad values."""
    count = _expert_count(keys)
    if count is None or count <= (0 if keys.kind != "jamba" else 1):
        return False
    if keys.kind.startswith("gemma4") and not keys.flag("enable_moe_block"):
        return False
    kinds = keys.listed("mlp_layer_types")
    if kinds is not None:
        return index < len(kinds) and kinds[index] == "sparse"
    frequency = keys.raw("moe_layer_freq")
    if isinstance(frequency, list):
        return index < len(frequency) and bool(frequency[index])
    if keys.kind in ("llama4", "llama4_text"):
        own = keys.listed("moe_layers")
        step = keys.integer("interleave_moe_layer_step", 1)
        return index in own if own else (index + 1) % step == 0
    if keys.optional("expert_layer_period"):
        return index % keys.integer("expert_layer_period") == keys.integer("expert_layer_offset", 0, minimum=0)
    if index in (keys.listed("mlp_only_layers") or ()):
        return False
    if keys.raw("decoder_sparse_step") is not None:
        return (index + 1) % keys.integer("decoder_sparse_step") == 0
    first = keys.largest("dense_first") or 0
    if index < first:
        return False
    last = keys.raw("moe_layer_end_index")
    if isinstance(last, int) and 0 <= last < index:
        return False
    every = keys.optional("moe_layer_interval") or (frequency if isinstance(frequency, int) and frequency > 0 else 1)
    return (index + 1) % every == 0 if keys.optional("moe_layer_interval") else index % every == 0


def _expert_count(keys: Keys) -> int | None:
    if keys.kind == "dbrx":
        return keys.inner("ffn_config", "moe_num_experts")
    if keys.kind == "granitemoehybrid" and keys.values.get("num_local_experts") == 0:
        return 0
    return keys.largest("experts")


def _experts(keys: Keys, traits: Traits) -> tuple[Experts, list[Linear], int]:
    """Return a layer's experts, the matrices beside them (router and shared experts), and further parameters."""
    hidden, count = keys.integer("hidden"), _expert_count(keys) or 0
    own = keys.kind == "dbrx"
    chosen = keys.inner("ffn_config", "moe_top_k") if own else keys.largest("experts_per_token")
    ffn = keys.inner("ffn_config", "ffn_hidden_size") if own else _expert_width(keys)
    if not chosen or not ffn:
        missing = "ffn_config" if own else ALIASES["experts_per_token"][0]
        raise UserError(f"{keys.where}: {missing} does not tell the experts of a token and their width")
    if chosen > count:
        raise UserError(f"{keys.where}: num_experts_per_tok {chosen} is more than the {count} experts")
    latent = keys.optional("moe_latent_size") or hidden
    module = "experts" if keys.kind.startswith("gemma4") else "mlp.experts"
    routed = _feed_forward("experts_", traits, ffn, latent, traits.expert_bias, module, EXPERT)
    router = Linear(
        "router",
        count,
        hidden,
        traits.router_bias,
        names=("mlp.gate", "mlp.router", "block_sparse_moe.gate", "mixer.gate"),
        role=ROUTER,
        split=WHOLE,
    )
    matrices = [router]
    if latent != hidden:
        matrices += [
            Linear("latent_in", latent, hidden, split=WHOLE),
            Linear("latent_out", hidden, latent, split=WHOLE),
        ]
    shared = _shared_width(keys, ffn)
    if shared:
        matrices += _feed_forward(
            "shared_", traits, shared, hidden, bias_of(keys, traits.ffn_bias), "mlp.shared_experts"
        )
    if keys.kind in ("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text") and shared:
        matrices.append(Linear("shared_gate", 1, hidden, names=("mlp.shared_expert_gate",), role=ROUTER, split=WHOLE))
    corrections = count if keys.kind in _CORRECTED else 0
    return Experts(count, chosen, tuple(routed), ffn), matrices, corrections


def _expert_width(keys: Keys) -> int:
    return keys.largest("expert_ffn") or keys.integer("ffn")


def _shared_width(keys: Keys, ffn: int) -> int:
    if keys.kind in ("llama4", "llama4_text"):
        return keys.integer("ffn")
    count = keys.largest("shared_experts") or 0
    own = keys.optional("shared_ffn", minimum=0)
    if keys.kind in ("granitemoe", "mixtral", "gpt_oss", "minimax_m2"):
        return 0
    if own is not None:
        return own * (count if keys.kind == "nemotron_h" and count else 1)
    return count * ffn


def _dense_width(keys: Keys, index: int) -> int:
    if keys.kind in ("llama4", "llama4_text"):
        return keys.integer("intermediate_size_mlp")
    if keys.kind == "granitemoehybrid" and not _expert_count(keys):
        return keys.integer("shared_intermediate_size")
    if keys.kind == "recurrent_gemma":
        return keys.integer("ffn") // 2
    if keys.kind in ("lfm2",) and keys.flag("block_auto_adjust_ff_dim", True):
        width = int(2 * keys.integer("ffn") / 3)
        width = int(keys.number("block_ffn_dim_multiplier", 1.0) * width)
        step = keys.integer("block_multiple_of", 256)
        return step * -(-width // step)
    if keys.kind == "mpt":
        return int(keys.number("expansion_ratio", 4) * keys.integer("hidden"))
    if keys.kind == "gemma4_text" and keys.flag("use_double_wide_mlp"):
        shared = keys.optional("num_kv_shared_layers", minimum=0) or 0
        return keys.integer("ffn") * (2 if index >= keys.integer("layers") - shared else 1)
    if keys.optional("dense_intermediate_size"):
        return keys.integer("dense_intermediate_size")
    own = keys.entry("ffn", index)
    if own is not None:
        return own
    return keys.integer("ffn", 4 * keys.integer("hidden") if keys.kind in _FOUR_TIMES else None)


_CORRECTED = ("ernie4_5_moe", "afmoe")
"""Families that learn a correction for each expert's score; others keep it outside their parameters."""
_FOUR_TIMES = ("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "codegen", "bloom", "falcon", "RefinedWeb", "RefinedWebModel")


def _feed_forward(
    prefix: str, traits: Traits, ffn: int, hidden: int, bias: bool | str, module: str = "mlp", role: str = "linear"
) -> list[Linear]:
    up_names = (f"{module}.up_proj", f"{module}.gate_up_proj", f"{module}.gate_proj")
    first = f"{prefix}up_gate" if traits.gated else f"{prefix}up"
    return [
        Linear(first, (2 if traits.gated else 1) * ffn, hidden, bool(bias), names=up_names, role=role),
        Linear(f"{prefix}down", hidden, ffn, bool(bias), names=(f"{module}.down_proj",), role=role, split=ROW),
    ]


def _per_layer_input(keys: Keys) -> list[Linear]:
    width = keys.optional("hidden_size_per_layer_input", minimum=0)
    if not width:
        return []
    hidden = keys.integer("hidden")
    return [
        Linear("per_layer_gate", width, hidden, names=("per_layer_input_gate",), split=WHOLE),
        Linear("per_layer_out", hidden, width, names=("per_layer_projection",), split=WHOLE),
    ]


def _alternating(keys: Keys, copies: int) -> list[Linear]:
    """Return what a layer has for alternating updates of several copies of the hidden state (Gemma 3n): a router of
    theirs, and a residual of low rank.
    """
    hidden, rank = keys.integer("hidden"), keys.integer("laurel_rank")
    return [
        Linear("copies_router", copies, hidden, names=("altup.modality_router",), role=ROUTER, split=WHOLE),
        Linear("residual_in", rank, hidden, names=("laurel.linear_left",), split=WHOLE),
        Linear("residual_out", hidden, rank, names=("laurel.linear_right",), split=WHOLE),
    ]


def _with_formats(block: Block, index: int, quantization: Quantization | None) -> Block:
    if quantization is None:
        return block

    def formatted(one: Linear) -> Linear:
        names = [f"layers.{index}.{name}" for own in one.names for name in _spellings(own)]
        return dataclasses.replace(one, format=quantization.choose(names, one.role))

    experts = block.experts
    if experts is not None:
        experts = dataclasses.replace(experts, matrices=tuple(formatted(one) for one in experts.matrices))
    return dataclasses.replace(block, matrices=tuple(formatted(one) for one in block.matrices), experts=experts)


def _spellings(name: str) -> list[str]:
    """Return a module's name as different families write its beginning."""
    begin, _, rest = name.partition(".")
    others = {
        "self_attn": ("self_attn", "attn", "mixer", "attention", "self_attention"),
        "mlp": ("mlp", "mixer", "block_sparse_moe", "feed_forward", "ffn"),
        "linear_attn": ("linear_attn", "self_attn"),
    }
    return [f"{one}.{rest}" if rest else one for one in others.get(begin, (begin,))]


def _grouped(layers: list[Block]) -> tuple[Block, ...]:
    counts: dict[Block, int] = {}
    for one in layers:
        counts[one] = counts.get(one, 0) + 1
    return tuple(dataclasses.replace(one, count=count) for one, count in counts.items())


def _around(keys: Keys, traits: Traits, blocks: tuple[Block, ...], quantization: Quantization | None) -> Decoder:
    hidden, vocabulary = keys.integer("hidden"), keys.integer("vocabulary")
    width = keys.optional("word_embed_proj_dim") or hidden
    around: dict[str, int] = {}
    if traits.final_norm:
        around["final norm"] = hidden * NORM_PARAMETERS[traits.norm]
    if traits.embedding_norm:
        around["embedding norm"] = 2 * hidden
    if traits.learned_positions:
        around["positions"] = (keys.integer("length") + traits.position_offset) * hidden
    per_layer = keys.optional("hidden_size_per_layer_input", minimum=0)
    if per_layer:
        wide = keys.integer("layers") * per_layer
        around["per-layer embeddings"] = keys.integer("vocab_size_per_layer_input", vocabulary) * wide
        around["per-layer projection"] = wide * hidden + per_layer
    projections: tuple[Linear, ...] = ()
    if width != hidden:
        projections = (Linear("project_in", hidden, width), Linear("project_out", width, hidden))
    if copies := keys.optional("altup_num_inputs"):
        wide = (copies - 1) * hidden
        projections = (Linear("copies_in", wide, hidden), Linear("copies_out", wide, hidden))
    head, tied, extra = _head(keys, traits, vocabulary, width, quantization)
    around |= extra
    return Decoder(
        hidden=hidden,
        vocabulary=vocabulary,
        embedding_width=width,
        tied=tied,
        head=head,
        blocks=blocks,
        projections=projections,
        around=around,
        norm_flop=9.0 if traits.norm == "layer" else 6.0,
        activation_flop=5.0 if traits.gated else 1.0,
        position_width=hidden if traits.learned_positions else 0,
    )


def _head(
    keys: Keys, traits: Traits, vocabulary: int, width: int, quantization: Quantization | None
) -> tuple[Linear | None, bool, dict[str, int]]:
    """Return the LM head, whether it shares the embedding, and the parameters of another head in its place."""
    names = keys.architectures if isinstance(keys.architectures, list) else []
    name = names[0] if names and isinstance(names[0], str) else "ForCausalLM"
    if re.search(r"SequenceClassification|RewardModel|TokenClassification", name):
        return None, False, {"score": keys.integer("hidden") * _labels(keys)}
    if name.endswith("Model") and not name.endswith("LMHeadModel"):
        return None, False, {}
    default = traits.tied if traits.tied is not None else False
    tied = keys.flag("tie_word_embeddings", default)
    head = Linear("lm_head", vocabulary, width, bias_of(keys, traits.head_bias), names=("lm_head",), role=HEAD)
    if quantization is not None and not tied:
        head = dataclasses.replace(head, format=quantization.choose(("lm_head",), HEAD))
    return head, tied, {}


def _labels(keys: Keys) -> int:
    named = keys.values.get("id2label")
    if isinstance(named, Mapping) and named:
        return len(named)
    return keys.integer("num_labels", 1)
