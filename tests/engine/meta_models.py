"""Builds models on transformers' meta device, without memory, and tells what they have; run by the engine's Python.

`python meta_models.py CONFIGS.json` prints, by name, the parameters (shared ones once) and the elements that a token
takes in each layer's cache, from a forward pass of four tokens; null where a model has no such cache or cannot run
without data.
"""

import json
import logging
import sys
import warnings
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SAME = {"kimi_k2": "deepseek_v3"}
"""Model types of code outside transformers whose classes are those of another type."""


def build(config: dict[str, Any]) -> Any:
    """Return the model of a config.json content, without data."""
    values = dict(config)
    kind = values.pop("model_type")
    made = CONFIG_MAPPING[SAME.get(kind, kind)](**values)
    made._attn_implementation = "eager"
    named = (config.get("architectures") or [""])[0]
    with torch.device("meta"):
        if hasattr(transformers, named):
            return getattr(transformers, named)._from_config(made)
        return transformers.AutoModelForCausalLM.from_config(made)


def cached(model: Any) -> list[int] | None:
    """Return the elements of a token in the cache of each layer."""
    ids = torch.zeros((1, 4), dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            cache = model(input_ids=ids, use_cache=True).past_key_values
        layers = [(getattr(one, "keys", None), getattr(one, "values", None)) for one in cache.layers]
        return [0 if k is None else k.shape[1] * k.shape[3] + v.shape[1] * v.shape[3] for k, v in layers]
    except Exception:  # whatever a model needs that is not there without data
        return None


def main() -> None:
    """Print what each model has."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.bfloat16)
    with open(sys.argv[1], encoding="utf-8") as file:
        configs = json.load(file)
    found = {}
    for name, config in configs.items():
        model = build(config).eval()
        model.tie_weights()
        parameters = {id(one): one.numel() for one in model.parameters()}
        found[name] = {"parameters": sum(parameters.values()), "cached": cached(model)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
