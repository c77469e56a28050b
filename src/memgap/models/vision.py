"""Parameters of the vision tower that a model of several modalities loads beside its decoder.

Only counted, never predicted: a step of text leaves it alone. Towers that are not known are named as not counted.
"""

from collections.abc import Callable, Mapping
from typing import Any

Part = Mapping[str, Any]


def _size(part: Part, *names: str, default: int) -> int:
    for name in names:
        value = part.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return default


def _plain_layer(width: int, ffn: int, gated: bool, bias: bool, norm: int) -> int:
    """Return the parameters of a layer: attention of equal widths, a feed-forward block and two norms."""
    matrices = 4 * width * width + (3 if gated else 2) * width * ffn
    biases = 4 * width + (2 if gated else 1) * ffn + width if bias else 0
    return matrices + biases + 2 * norm * width


def _siglip(part: Part, hidden: int, _outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=1152), _size(part, "intermediate_size", default=4304)
    layers, patch = _size(part, "num_hidden_layers", default=27), _size(part, "patch_size", default=14)
    image = _size(part, "image_size", default=896)
    around = width * 3 * patch * patch + width + (image // patch) ** 2 * width + 2 * width
    return layers * _plain_layer(width, ffn, False, True, 2) + around + width * hidden + width


def _pixtral(part: Part, hidden: int, outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=1024), _size(part, "intermediate_size", default=4096)
    layers, patch = _size(part, "num_hidden_layers", default=24), _size(part, "patch_size", default=16)
    merge = _size(outer, "spatial_merge_size", default=2) ** 2
    projector = width + merge * width * width + width * hidden + hidden * hidden
    if outer.get("multimodal_projector_bias"):
        projector += 2 * hidden
    return layers * _plain_layer(width, ffn, True, False, 1) + 3 * patch * patch * width + width + projector


def _qwen25(part: Part, hidden: int, _outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=1280), _size(part, "intermediate_size", default=3420)
    layers, patch = _size(part, "depth", default=32), _size(part, "patch_size", default=14)
    merged = width * _size(part, "spatial_merge_size", default=2) ** 2
    out = _size(part, "out_hidden_size", default=hidden)
    stem = width * 3 * _size(part, "temporal_patch_size", default=2) * patch * patch
    merger = width + merged * merged + merged + merged * out + out
    return layers * _plain_layer(width, ffn, True, True, 1) + stem + merger


def _qwen3(part: Part, hidden: int, _outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=1152), _size(part, "intermediate_size", default=4304)
    layers, patch = _size(part, "depth", default=27), _size(part, "patch_size", default=16)
    merged = width * _size(part, "spatial_merge_size", default=2) ** 2
    out = _size(part, "out_hidden_size", default=hidden)
    stem = width * 3 * _size(part, "temporal_patch_size", default=2) * patch * patch + width
    positions = _size(part, "num_position_embeddings", default=2304) * width
    projection = merged * merged + merged + merged * out + out
    deep = part.get("deepstack_visual_indexes")
    count = len(deep) if isinstance(deep, list) else 3
    mergers = 2 * width + projection + count * (2 * merged + projection)
    return layers * _plain_layer(width, ffn, False, True, 2) + stem + positions + mergers


def _llama4(part: Part, hidden: int, _outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=768), _size(part, "intermediate_size", default=5632)
    layers, patch = _size(part, "num_hidden_layers", default=34), _size(part, "patch_size", default=14)
    image = _size(part, "image_size", default=448)
    middle, out = _size(part, "projector_input_dim", default=4096), _size(part, "projector_output_dim", default=4096)
    given = _size(part, "vision_output_dim", default=7680)
    stem = width + ((image // patch) ** 2 + 1) * width + 3 * patch * patch * width + 4 * width
    adapter = ffn * middle + middle * out
    return layers * _plain_layer(width, ffn, False, True, 2) + stem + adapter + given * hidden


def _gemma4(part: Part, hidden: int, _outer: Part) -> int:
    width, ffn = _size(part, "hidden_size", default=1152), _size(part, "intermediate_size", default=4304)
    layers, patch = _size(part, "num_hidden_layers", default=27), _size(part, "patch_size", default=16)
    head = _size(part, "head_dim", default=width // _size(part, "num_attention_heads", default=16))
    stem = 2 * _size(part, "position_embedding_size", default=10240) * width + 3 * patch * patch * width
    return layers * (_plain_layer(width, ffn, True, False, 2) + 2 * head) + stem + width * hidden


_TOWERS: Mapping[str, Callable[[Part, int, Part], int]] = {
    "gemma3": _siglip,
    "mistral3": _pixtral,
    "qwen2_5_vl": _qwen25,
    "qwen3_vl": _qwen3,
    "qwen3_vl_moe": _qwen3,
    "qwen3_5": _qwen3,
    "qwen3_5_moe": _qwen3,
    "llama4": _llama4,
    "gemma4": _gemma4,
}


def vision_parameters(config: Part, hidden: int) -> tuple[int, tuple[str, ...]]:
    """Return the tower's parameters, and the keys of towers that are there but not counted."""
    names = config.get("architectures")
    if isinstance(names, list) and names and str(names[0]).endswith("ForCausalLM"):
        return 0, ()
    others = tuple(key for key in ("audio_config", "speech_config") if config.get(key))
    part, tower = config.get("vision_config"), _TOWERS.get(str(config.get("model_type")))
    if part is None and tower is not None and isinstance(names, list) and names:
        part = {}
    if not isinstance(part, Mapping):
        return 0, others
    return (0, ("vision_config", *others)) if tower is None else (tower(part, hidden, config), others)
