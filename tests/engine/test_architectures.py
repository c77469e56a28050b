"""What a config.json is read as, against the models that transformers builds from the same keys."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.engine.identity import engine_python, engine_record
from memgap.models import load_registry, resolve_model
from memgap.models.hf_config import from_hf_config, to_hf_config
from memgap.models.writing import write_model

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]

RECORDS = yaml.safe_load(
    (Path(__file__).parents[1] / "unit" / "data" / "architectures.yaml").read_text(encoding="utf-8")
)
REPEATED = {"falcon-40b"}
"""transformers repeats this one's 8 KV heads for every group before it caches them; engines cache 8."""


def configs() -> dict[str, dict[str, Any]]:
    """Return the configs of all records that transformers knows, and those that the registry writes for engines."""
    records = {name: one["config"] for name, one in RECORDS.items() if one.get("built") is not False}
    registry = {
        f"registry {name}": to_hf_config(entry.architecture, "bfloat16") for name, entry in load_registry().items()
    }
    for config in registry.values():
        config.pop("quantization_config", None)
    return records | registry


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what transformers makes of each config."""
    file = tmp_path_factory.mktemp("configs") / "configs.json"
    file.write_text(json.dumps(configs()))
    building = [engine_python("auto"), str(Path(__file__).with_name("meta_models.py")), str(file)]
    done = subprocess.run(
        building, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", configs())
def test_parameters_are_those_of_the_built_model(name: str, built: dict[str, dict[str, Any]]) -> None:
    assert from_hf_config(configs()[name], name).parameter_count() == built[name]["parameters"]


@pytest.mark.parametrize("name", configs())
def test_the_cache_of_a_token_is_that_of_the_built_model(name: str, built: dict[str, dict[str, Any]]) -> None:
    if built[name]["cached"] is None or name in REPEATED:
        pytest.skip("transformers has no cache to compare with")
    decoder = from_hf_config(configs()[name], name).decoder
    counted = sum(one.count * one.attention.cache_elements for one in decoder.blocks if one.attention)
    assert counted == sum(built[name]["cached"])


LOAD = """
import sys, transformers
model, told = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
print(len(told["missing_keys"]), len(told["unexpected_keys"]), len(told["mismatched_keys"]))
"""


@pytest.mark.parametrize("base", ["tiny-llama", "tiny-qwen3", "tiny-opt"])
def test_a_file_of_random_weights_is_a_whole_checkpoint(base: str, tmp_path: Path) -> None:
    model = resolve_model("m", {"m": {"base": base, "weights": "random-file"}})
    write_model(model, tmp_path, engine_python("auto"))
    loading = [engine_python("auto"), "-c", LOAD, str(tmp_path)]
    done = subprocess.run(
        loading, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.stdout.split() == ["0", "0", "0"], done.stderr
