"""The real engine tells its flags, once."""

from pathlib import Path

import pytest

from memgap.engine.identity import engine_record
from memgap.errors import UserError
from memgap.tuning.engine_flags import engine_flags
from memgap.tuning.validate import check_flags

ENGINE = engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        ENGINE["version"] == "not-installed", reason="vLLM is not installed in .venv-engine: `make install`"
    ),
]


def test_vllm_tells_its_flags_and_the_answer_is_kept(tmp_path: Path) -> None:
    record = {
        "engine": ENGINE,
        "model": {"name": "tiny-opt", "dtype": "bfloat16", "weights": "synthetic"},
        "server": {"args": {"max-num-seqs": 4}, "env": {}},
    }
    flags = engine_flags(record, "auto", tmp_path)
    assert flags is not None and {"max-num-seqs", "kv-cache-dtype", "speculative-config", "block-size"} <= flags
    kept = tmp_path / f"{ENGINE['package']}-{ENGINE['version']}.json"
    written = kept.stat().st_mtime_ns
    assert engine_flags(record, "auto", tmp_path) == flags and kept.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="has no flag 'calculate-kv-scales'"):
        check_flags(["calculate-kv-scales"], flags, ENGINE["package"], "here")
    check_flags(["no-enable-prefix-caching", "enable-prefix-caching"], flags, ENGINE["package"], "here")
