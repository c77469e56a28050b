"""Run by the engine's interpreter: what transformers makes of each synthetic model folder named on the command line.

Prints one JSON list: the class, the number of parameters, and what the tokenizer does with a few ids.
"""

import json
import sys

import torch
import transformers

IDS = [0, 2, 11, 299]

found = []
for folder in sys.argv[1:]:
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer.decode(IDS, skip_special_tokens=True)
    found.append(
        {
            "hf_class": type(module).__name__,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "words": words,
            "ids": tokenizer.encode(words),
        }
    )
json.dump(found, sys.stdout)
