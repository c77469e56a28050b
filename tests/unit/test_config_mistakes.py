"""Every kind of mistake in a configuration is one sentence: a place, and what would be right."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.config import files
from memgap.config.load import check_config
from memgap.config.reference import main as write_reference
from memgap.config.reference import reference_page
from memgap.errors import UserError
from memgap.shipped import QUICKSTART
from memgap.workflow import load_study
from tests.support.configs import broken

FIXED = "sweeps.small.fixed"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("engines.mock.version", 0.32, "config: engines.mock.version: 0.32 is not of type 'string'"),
        ("engines.mock.startup_timeout_s", 0, "config: engines.mock.startup_timeout_s: 0 is less than"),
        ("engines.mock", {}, "config: engines.mock: the key 'adapter' is missing"),
        ("models", ["tiny-opt"], "config: models: ['tiny-opt'] is not of type 'object'"),
        ("sweeps", {}, "config: sweeps: {} should be non-empty"),
        ("sweeps", {2024: {"fixed": {}}}, "config: sweeps: 2024 is not of type 'string'"),
        ("sweeps.small.experiments", {"fast": None}, "config: sweeps.small.experiments.fast: None is not of type"),
        ("sweeps.small.zip", [["model"]], "config: sweeps.small.zip.0: ['model'] is too short"),
        (f"{FIXED}.batch_cap", [1, 0], f"config: {FIXED}.batch_cap.1: 0 is less than the minimum of 1"),
        (f"{FIXED}.batch_cap", [], f"config: {FIXED}.batch_cap: [] should be non-empty"),
        (f"{FIXED}.batch_cap", [1, "x"], f"config: {FIXED}.batch_cap: [1, 'x'] does not fit. Most requests in flight"),
        (f"{FIXED}.server", {"max_model_len": 1}, f"config: {FIXED}.server: 'max_model_len' cannot be a name here"),
        (
            f"{FIXED}.env",
            {"K": 3},
            f"config: {FIXED}.env.K: 3 is not of type 'string': YAML reads a number; put it in quotes",
        ),
        (f"{FIXED}.env", {"A-B": "3"}, f"config: {FIXED}.env: 'A-B' cannot be a name here"),
        ("datasets.short.prompt_tokens", {"min": 9}, "config: datasets.short.prompt_tokens: the key 'max' is missing"),
        ("datasets.short.prompt_tokens", {"min": 9, "mx": 3}, "unknown key 'mx' (did you mean 'max'?); known are max"),
        ("datasets.short.seed", -1, "config: datasets.short.seed: -1 is less than the minimum of 0"),
        ("figures", {"fig14": {"sweep": "small"}}, "config: figures: unknown key 'fig14'"),
        ("figures", {"fig02": {}}, "config: figures.fig02: the key 'sweep' is missing"),
        ("remeasure", ["xyz"], "config: remeasure.0: 'xyz' cannot be a name here"),
        ("remeasure", "0123456789abcdef", "config: remeasure: '0123456789abcdef' is not of type 'array'"),
        ("remeasure_failed", "yes", "config: remeasure_failed: 'yes' is not of type 'boolean'"),
        ("advisor.slo", 3, "config: advisor.slo: 3 does not fit. Bound on the latency"),
        ("advisor.slo", {"ms": -1}, "config: advisor.slo.ms: -1 is less than or equal to the minimum of 0"),
        ("collectors.interval_s", 0.001, "config: collectors.interval_s: 0.001 is less than the minimum"),
    ],
)
def test_the_place_and_the_rule_are_named(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_config(broken(path, value))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (f"{FIXED}.load.request_timeout_s", float("inf"), "request_timeout_s"),
        (f"{FIXED}.load.temperature", float("nan"), "temperature"),
        (f"{FIXED}.server", {"some-flag": float("inf")}, "some-flag"),
        ("datasets.short.mean_prompt_tokens", float("nan"), "mean_prompt_tokens"),
    ],
)
def test_infinities_and_nan_are_refused_by_place(path: str, value: float, place: str) -> None:
    with pytest.raises(UserError, match=place):
        load_study(broken(path, value))


@pytest.mark.parametrize("content", [b"a: \x00b\n", b"a: \xff\n", b"\t- a\n", b"{a: 1}: 2\n", b"a: *b\n"])
def test_unreadable_text_is_one_line_with_the_file_in_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.yaml") as caught:
        files.read_config_files([path])
    assert "\n" not in str(caught.value)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="line 1: not valid YAML"):
        files.read_config_files([path])


def test_a_file_without_sweeps_changes_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(
        "sweeps: {s: {fixed: {}}}\nadvisor: {epsilon: 0.5, memory_margin: 0}\n"
    )
    (tmp_path / "mine.yaml").write_text("advisor: {epsilon: 0.2}\n")
    merged = files.read_config_files([tmp_path / "mine.yaml"])
    assert merged == {"sweeps": {"s": {"fixed": {}}}, "advisor": {"epsilon": 0.2, "memory_margin": 0}}


def test_in_a_folder_without_a_study_the_quickstart_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.read_config_files([]) == yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))


def test_the_reference_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    assert write_reference([str(tmp_path / "docs/page.md")]) == 0
    page = (tmp_path / "docs/page.md").read_text()
    assert page == reference_page()
    assert "| `engines.<name>.adapter` | `vllm` \\| `mock` \\| " in page
