"""Benchmark files with fixed_args and experiments are read as they are."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.models.registry import load_registry
from memgap.tuning.__main__ import main
from memgap.tuning.candidates import Builder
from memgap.tuning.convert import Options, convert
from memgap.workflow import load_study

FILE = Path(__file__).parent / "data/tuning/two_tiers.yaml"


def converted(follow_winners: bool = False) -> dict[str, Any]:
    """Return the example as a configuration whose models have shapes and are made up."""
    config = convert(FILE, Options(follow_winners=follow_winners)).config
    shape = load_registry()["opt-1.3b"].architecture.to_dict()
    for name in config["models"]:
        config["models"][name] = {"weights": "synthetic", "architecture": shape, "dtype": "bfloat16"}
    config["models"]["opt-1.3b"] = {"weights": "synthetic"}
    for experiment in config["tuning"]["two_tiers"]["tiers"]["tier1"]["experiments"].values():
        experiment["server"].pop("speculative-config", None)
    return config


def test_the_whole_file_becomes_a_tuning_that_is_valid() -> None:
    config = converted()
    check_config(config)
    (plan,) = load_study(config).tunings.values()
    builder = Builder(plan, ("opt-1.3b", "tutorial"))
    assert len(builder.tier(0, None)) == 2 * 2 * 2
    default = [one.record["server"]["args"] for one in builder.defaults()]
    assert [one["tensor-parallel-size"] for one in default] == [1, 2, 4, 8]
    assert default[0]["max-num-seqs"] == 256 and default[0]["max-num-batched-tokens"] == 8192
    loaded = builder.tier(0, None)[0].record["load"]
    assert loaded["requests"] == 10000 and loaded["concurrency"] == 5000


def test_organisations_are_kept_and_experiments_may_share_a_name() -> None:
    config = convert(FILE, Options()).config
    assert {"first-org--model-1b", "second-org--model-1b"} == set(config["models"])
    assert list(config["tuning"]["two_tiers"]["tiers"]["tier1"]["experiments"]) == ["tier1-small", "tier1-small-2"]


def test_values_are_taken_over_exactly() -> None:
    experiments = convert(FILE, Options()).config["tuning"]["two_tiers"]["tiers"]["tier1"]["experiments"]
    server = experiments["tier1-small"]["server"]
    assert server["gpu-memory-utilization"] == [0.29, 0.95], "no percentage is cut"
    assert server["speculative-config"] == [
        None,
        {"method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_max": 5},
        {"method": "suffix", "num_speculative_tokens": 32},
    ]


def test_what_was_copied_by_hand_from_an_earlier_tier_can_be_left_to_its_winner() -> None:
    as_written = converted()["tuning"]["two_tiers"]["tiers"]["tier1"]["experiments"]["tier1-small"]["server"]
    assert as_written["max-num-seqs"] == 1024
    following = converted(follow_winners=True)
    server = following["tuning"]["two_tiers"]["tiers"]["tier1"]["experiments"]["tier1-small"]["server"]
    assert set(server) == {"gpu-memory-utilization"}
    (plan,) = load_study(following).tunings.values()
    builder = Builder(plan, ("opt-1.3b", "tutorial"))
    won = next(one for one in builder.tier(0, None) if one.record["server"]["args"]["max-num-seqs"] == 1024)
    assert all(one.record["server"]["args"]["max-num-seqs"] == 1024 for one in builder.tier(1, won.arguments))


def test_the_notes_say_what_is_missing_or_has_no_meaning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["convert", str(FILE), "--out", str(tmp_path / "made.yaml")]) == 0
    told = capsys.readouterr().err
    assert "models.first-org--model-1b needs its commit on the hub" in told
    assert "qos, time" in told and "stands for the template's prompts by made-up tokens" in told
    assert yaml.safe_load((tmp_path / "made.yaml").read_text())["tuning"]["two_tiers"]["seed"] == 42


def test_several_templates_are_several_datasets(tmp_path: Path) -> None:
    content = yaml.safe_load(FILE.read_text())
    content["fixed_args"]["prompt-template"] = [["a", "Do A: [[DOCUMENT]]"], ["b", "Do B to this: [[DOCUMENT]]"]]
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(content))
    config = convert(tmp_path / "f.yaml", Options()).config
    assert config["tuning"]["f"]["fixed"]["dataset"] == ["a", "b"] and set(config["datasets"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"experiments": "none"}, "it has no list of `experiments`"),
        ({"experiments": [{"args": {}}]}, "experiment 1 needs a `name`"),
        ({"experiments": [{"name": "x", "args": {"name": "y"}}]}, "has `name` among its args"),
        ({"fixed_args": {"prompt-template": ["x", "no place"]}}, "is no pair of a name and a text"),
        ({"fixed_args": {"speculative-config": "{not json"}}, "is no JSON mapping"),
    ],
)
def test_what_is_no_such_file_is_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    content = {**yaml.safe_load(FILE.read_text()), **change}
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=sentence):
        convert(tmp_path / "f.yaml", Options())


def test_a_plan_is_written_for_a_machine_without_snakemake(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", "--configfile", "config/tuning.yaml", "--out", str(out)]) == 0
    assert '"tuning":"tiny"' in out.read_text()
