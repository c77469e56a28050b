"""A configuration is checked with one sentence that names the place and what would be right."""

from pathlib import Path
from typing import Any

import pytest

from memgap.config.files import read_config_files
from memgap.config.load import check_config, schema
from memgap.config.reference import reference_page
from memgap.errors import UserError
from tests.support.configs import broken
from tests.support.records import small_config

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("sweep", {}, "config: top level: unknown key 'sweep' (did you mean 'sweeps'?)"),
        ("engines.mock.adaptor", "x", "config: engines.mock: unknown key 'adaptor' (did you mean 'adapter'?)"),
        ("engines.mock.adapter", "tgi", "config: engines.mock.adapter: 'tgi' is none of vllm, mock, hf, sglang"),
        ("sweeps.small.fixed.load.request", 3, "config: sweeps.small.fixed.load: unknown key 'request'"),
        ("sweeps.small.fixed.cap_side", "clint", "'clint' is none of client, server (did you mean 'client'?)"),
        ("sweeps.a b", {"fixed": {}}, "'a b' cannot be a name here"),
        ("sweeps.small", {}, "config: sweeps.small: the key 'fixed' is missing"),
        ("datasets.short.kind", "shareGPT", "is none of sharegpt-like, random, sharegpt"),
        ("figures.fig02", {"sweep": "smal"}, "unknown sweep 'smal' (did you mean 'small'?); known are small"),
        ("engines.mock.port", 80, "config: engines.mock.port: 80 is less than the minimum of 1024"),
        ("advisor.slo", {"multipel": 2}, "config: advisor.slo"),
    ],
)
def test_one_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_config(broken(path, value))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_sweeps_is_said() -> None:
    with pytest.raises(UserError, match="the key 'sweeps' is missing"):
        check_config({})


def test_defaults_are_filled_and_the_given_config_is_not_changed() -> None:
    given = small_config()
    checked = check_config(given)
    assert checked["advisor"]["slo"] == {"multiple": 2.0, "times_latency_at": 32}
    assert checked["advisor"]["epsilon"] == 0.1
    assert checked["engines"]["mock"]["port"] is None
    assert checked["sweeps"]["small"]["experiments"] == {"default": {}}
    assert "advisor" not in given


def test_the_reference_of_a_multiple_has_a_default() -> None:
    checked = check_config({**small_config(), "advisor": {"slo": {"multiple": 3}}})
    assert checked["advisor"]["slo"] == {"multiple": 3, "times_latency_at": 32}


def test_checking_twice_changes_nothing() -> None:
    once = check_config(small_config())
    assert check_config(once) == once


def test_the_reference_page_is_current() -> None:
    assert (REPOSITORY / "docs/config.md").read_text() == reference_page(), "make docs writes it anew"


def test_every_key_is_described() -> None:
    def undescribed(node: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, child in node.get("properties", {}).items():
            target = schema()["$defs"].get(child.get("$ref", "").rsplit("/", 1)[-1], {})
            if not child.get("description") and not target.get("description") and not target.get("properties"):
                found.append(f"{path}.{name}")
            found += undescribed(child, f"{path}.{name}")
        return found

    everything = undescribed(schema(), "")
    for name, node in schema()["$defs"].items():
        everything += undescribed(node, name)
    assert everything == []


def test_files_are_laid_over_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sweeps: {s: {fixed: {model: a, batch_cap: [1, 2]}}}\n")
    (tmp_path / "b.yaml").write_text("sweeps: {s: {fixed: {batch_cap: [4]}}}\n")
    merged = read_config_files([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert merged == {"sweeps": {"s": {"fixed": {"model": "a", "batch_cap": [4]}}}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [1\nb: 2\n", "line 2: not valid YAML"), ("- 1\n", "has to be a mapping, not list"), (None, "cannot read")],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_config_files([path])


@pytest.mark.parametrize("written", ["null", "none", "", None])
def test_no_folder_can_be_said_on_the_command_line(written: str | None) -> None:
    checked = check_config({**small_config(), "recorded": written, "paper_reference": written})
    assert checked["recorded"] is None
    assert checked["paper_reference"] is None
