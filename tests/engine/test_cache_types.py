"""Bytes of a KV cache by its type, against the engine's own account of its layers."""

import json
import subprocess

import pytest

from memgap.engine.identity import engine_python, engine_record
from memgap.models.blocks import Attention
from memgap.models.cache import cache_type

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]
NAMES = ("bfloat16", "fp8", "fp8_e5m2", "fp8_per_token_head", "int8_per_token_head", "int4_per_token_head")
SHAPES = ((8, 128), (3, 64), (1, 256))
TOLD = """
import json, sys
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE as TYPES
from vllm.utils.torch_utils import nvfp4_kv_cache_full_dim
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend
from vllm.v1.kv_cache_interface import FullAttentionSpec, get_kv_quant_mode
names, shapes = json.loads(sys.argv[1])
found = {}
for heads, width in shapes:
    for name in names:
        spec = FullAttentionSpec(block_size=16, num_kv_heads=heads, head_size=width, dtype=TYPES[name],
                                 kv_quant_mode=get_kv_quant_mode(name))
        found[f"{name} {heads} {width}"] = TritonAttentionBackend.customize_spec(spec).page_size_bytes / 16
    found[f"nvfp4 {heads} {width}"] = 2 * heads * nvfp4_kv_cache_full_dim(width)
print(json.dumps(found))
"""


def test_the_engine_takes_as_many_bytes_for_a_token() -> None:
    asking = [engine_python("auto"), "-c", TOLD, json.dumps([NAMES, SHAPES])]
    done = subprocess.run(asking, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    for asked, told in json.loads(done.stdout.splitlines()[-1]).items():
        name, heads, width = asked.split()
        attention = Attention(int(heads), int(heads), int(width), int(width))
        assert cache_type(name).token_bytes(attention) == told, asked
