"""Benchmark files with fixed_args and experiments are read as they are."""

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.models.registry import load_registry
from memgap.tuning.__main__ import main
from memgap.tuning.candidates import Builder
from memgap.tuning.convert import FLAGS, TREATED, Converted, Options, convert
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


def test_a_model_of_the_hub_needs_nothing_but_its_name() -> None:
    found = convert(FILE, Options())
    assert found.config["models"]["first-org--model-1b"] == {"weights": "hub", "hub_id": "first-org/model-1b"}
    check_config(found.config)
    (note,) = (one for one in found.notes if "first-org" in one)
    assert "read from the hub at the first run and pinned in models.lock.json" in note
    assert "--shape first-org/model-1b=config.json and --revision first-org/model-1b=COMMIT" in note


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
    assert "models.first-org--model-1b is read from the hub at the first run" in told
    assert "qos, time" in told and "stands for the prompts by made-up tokens" in told
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


# --- what the original reads ---------------------------------------------------------------------------------------

TEMPLATED = {"prompt-template": ["short", "Shorten this text. [[DOCUMENT]]"], "max-tokens": 64, "max-examples": 50}


def made(folder: Path, fixed: Any, *experiments: dict[str, Any], options: Options | None = None) -> Converted:
    content = {"script": "run.py", "fixed_args": fixed, "experiments": list(experiments) or [{"name": "tier0-a"}]}
    (folder / "f.yaml").write_text(yaml.safe_dump(content))
    return convert(folder / "f.yaml", options or Options())


def tuning_of(found: Converted) -> dict[str, Any]:
    (tuning,) = found.config["tuning"].values()
    return dict(tuning)


def test_an_experiments_own_arguments_override_the_fixed_ones(tmp_path: Path) -> None:
    fixed = {
        **TEMPLATED,
        "max-concurrent-generations": 20,
        "temperature": 0.5,
        "model-name-or-path": "facebook/opt-1.3b",
    }
    args = {"max-concurrent-generations": [2, 4, 90], "max-tokens": [64, 128], "temperature": 0, "max-examples": 80}
    found = made(tmp_path, fixed, {"name": "tier0-a", "args": args}, {"name": "tier0-b", "args": {"max-num-seqs": 8}})
    tuning = tuning_of(found)
    assert (tuning["fixed"]["batch_cap"], tuning["fixed"]["load"]) == (20, {"requests": 50, "temperature": 0.5})
    own = tuning["tiers"]["tier0"]["experiments"]["tier0-a"]
    assert own["batch_cap"] == [2, 4, 80] and own["load"] == {"requests": 80, "temperature": 0.0}
    outputs = [found.config["datasets"][name]["output_tokens"] for name in own["dataset"]]
    assert outputs == [64, 128] and tuning["fixed"]["dataset"] == own["dataset"][0]
    assert {one["requests"] for one in found.config["datasets"].values()} == {80}
    assert tuning["tiers"]["tier0"]["experiments"]["tier0-b"] == {"server": {"max-num-seqs": 8}}
    expanded = load_study({**found.config, "models": {"opt-1.3b": {"weights": "synthetic"}}}).tunings
    assert len(expanded) == 1


def test_lists_of_fixed_arguments_are_axes_too(tmp_path: Path) -> None:
    fixed = {
        **TEMPLATED,
        "max-tokens": [32, 64],
        "max-concurrent-generations": [4, 8],
        "block-size": [16, 32],
        "tp": [1, 4],
    }
    tuning = tuning_of(made(tmp_path, fixed))
    assert len(tuning["fixed"]["dataset"]) == 2 and tuning["fixed"]["batch_cap"] == [4, 8]
    assert tuning["fixed"]["server"] == {"block-size": [16, 32], "tensor-parallel-size": [1, 4]}
    assert tuning["gpus"] == 8


def test_underscores_are_hyphens(tmp_path: Path) -> None:
    hyphens = made(tmp_path, {**TEMPLATED, "model-name-or-path": "a/b", "max-num-seqs": 4, "model-max-context": 900})
    spelt = {name.replace("-", "_"): value for name, value in TEMPLATED.items()}
    other = made(tmp_path, {**spelt, "model_name_or_path": "a/b", "max_num_seqs": 4, "model_max_context": 900})
    assert hyphens == other and hyphens.config["models"]
    both = made(tmp_path, {"max_num_seqs": 4, "max-num-seqs": 8}, {"name": "x", "args": {"max_num_seqs": 16}})
    assert any("max-num-seqs is there in two spellings" in note for note in both.notes)
    assert tuning_of(both)["tiers"]["tier0"]["experiments"]["x"]["server"] == {"max-num-seqs": 16}


def test_what_a_file_leaves_out_is_as_the_original_has_it(tmp_path: Path) -> None:
    found = made(tmp_path, None, {"name": "a", "args": None})
    tuning = tuning_of(found)
    assert tuning["fixed"] == {
        "dataset": "documents",
        "model": "Qwen--Qwen3-0.6B",
        "batch_cap": 500,
        "load": {"requests": 1000, "temperature": 1.0},
    }
    assert found.config["datasets"]["documents"]["output_tokens"] == 16384
    assert tuning["continue_on_failure"] is True and tuning["seed"] == 0
    for word in ("max-examples", "max-tokens", "temperature", "model-name-or-path", "model-max-context"):
        assert any(note.startswith(f"{word} is not given") for note in found.notes), word


@pytest.mark.parametrize(
    "name", [*TEMPLATED, "temperature", "seed", "max-concurrent-generations", "model-name-or-path"]
)
def test_null_is_the_default(tmp_path: Path, name: str) -> None:
    without = made(tmp_path, {key: value for key, value in TEMPLATED.items() if key != name})
    assert made(tmp_path, {**TEMPLATED, name: None}) == without


@pytest.mark.parametrize("name", ["tp", "pp", "max-num-seqs", "quantization", "speculative-config", "kv-cache-dtype"])
def test_null_takes_a_flag_away(tmp_path: Path, name: str) -> None:
    (server,) = {**tuning_of(made(tmp_path, {**TEMPLATED, name: None}))["fixed"]["server"]}.values()
    assert server is None


def test_tiers_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["tier10-a", "tier2-a", "Tier0-a", "other", "tier1-x", "tier10-b"]
    tiers = tuning_of(made(tmp_path, TEMPLATED, *({"name": name} for name in names)))["tiers"]
    assert list(tiers) == ["tier0", "tier1", "tier2", "tier10"]
    assert list(tiers["tier10"]["experiments"]) == ["tier10-a", "tier10-b"]
    assert list(tiers["tier0"]["experiments"]) == ["Tier0-a", "other"]


@pytest.mark.parametrize("template", ["Shorten this. [[DOCUMENT]]", ["default", "Shorten this. [[DOCUMENT]]"]])
def test_a_template_may_be_a_plain_text(tmp_path: Path, template: Any) -> None:
    assert made(tmp_path, {**TEMPLATED, "prompt-template": template}).config["datasets"].keys() == {"default"}


def test_revisions_and_code_of_a_model_are_its_own(tmp_path: Path) -> None:
    fixed = {**TEMPLATED, "model-name-or-path": "a/b", "model-revision": "c0ffee", "trust-remote-code": True}
    found = made(tmp_path, fixed)
    assert found.config["models"]["a--b"]["revision"] == "c0ffee"
    assert found.config["models"]["a--b"]["trust_remote_code"] is True
    (note,) = (one for one in found.notes if "models.a--b" in one)
    assert note.endswith("where no hub can be reached, give --shape a/b=config.json"), "the commit is there"
    for where in (fixed, {**fixed, "model-name-or-path": "facebook/opt-1.3b"}):
        noted = made(tmp_path, where, {"name": "x", "args": {"model-name-or-path": "facebook/opt-1.3b"}}).notes
        assert any("opt-1.3b is in the registry with a revision of its own" in note for note in noted)
    told = made(tmp_path, fixed, options=Options(revisions={"a/b": "beef", "no/such": "x"}))
    assert told.config["models"]["a--b"]["revision"] == "beef"
    assert any("no/such: no experiment has that model" in note for note in told.notes)
    with pytest.raises(UserError, match="a model has one revision"):
        made(tmp_path, fixed, {"name": "x", "args": {"model-name-or-path": "a/b", "model-revision": "d00d"}})


def test_long_names_stay_apart(tmp_path: Path) -> None:
    long = "x" * 100
    experiments: list[dict[str, Any]] = [
        {"name": long + "1"},
        {"name": long + "2", "args": {"model-name-or-path": [f"o/{long}a", f"o/{long}b"]}},
    ]
    fixed = {
        **TEMPLATED,
        "prompt-template": [[long, "One [[DOCUMENT]]"], [long, "Two words [[DOCUMENT]]"], ["-/!", "[[DOCUMENT]]"]],
    }
    found = made(tmp_path, fixed, *experiments)
    tuning = tuning_of(found)
    assert len(tuning["tiers"]["tier0"]["experiments"]) == 2 and len(found.config["models"]) == 3
    assert len(found.config["datasets"]) == 3 == len(set(tuning["fixed"]["dataset"]))
    names = [*found.config["datasets"], *found.config["models"], *tuning["tiers"]["tier0"]["experiments"]]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) for name in names)


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        ([1], "`fixed_args` has to be a mapping"),
        ({"max-examples": -1}, "max-examples is -1, which takes all documents"),
        ({"max_examples": [10, 0]}, "max-examples is 0, which takes all documents"),
        ({"max-examples": "many"}, "max-examples is 'many', but has to be a whole number of at least 1"),
        ({"max-examples": 2.5}, "max-examples is 2.5, but"),
        ({"max-examples": True}, "max-examples is True, but"),
        ({"max-examples": {"a": 1}}, "max-examples is {'a': 1}, but"),
        ({"max-tokens": -1}, "max-tokens is -1, but"),
        ({"max-tokens": []}, "max-tokens is an empty list"),
        ({"max-tokens": [[1]]}, r"max-tokens is \[1\], but"),
        ({"max-concurrent-generations": "x"}, "max-concurrent-generations is 'x', but"),
        ({"temperature": "warm"}, "temperature is 'warm', but has to be a number"),
        ({"temperature": [0, 1]}, "temperature is a list, but a tuning has one"),
        ({"temperature": float("nan")}, "temperature is nan, but"),
        ({"seed": "x"}, "seed is 'x', but"),
        ({"tp": "two"}, "tp is 'two', but"),
        ({"tp": [1, -1]}, "tp is -1, but"),
        ({"gpu-memory-utilization": 90}, "gpu-memory-utilization is 90, but has to be a number above 0"),
        ({"speculative-config": 5}, "speculative-config 5 is no JSON mapping"),
        ({"speculative-config": "[1]"}, "is no JSON mapping"),
        ({"kv-cache-dtype": 8}, "kv-cache-dtype is 8, but has to be a text"),
        ({"model-name-or-path": 7}, "model-name-or-path is 7, but has to be a text"),
        ({"model-name-or-path": "a/b", "model-revision": ["x"]}, "model-revision is a list"),
        ({"prompt-template": 5}, "prompt-template has to be a text"),
        ({"prompt-template": ["a", "b", "c"]}, "is no pair"),
        ({"prompt-template": ["a", None]}, "is no pair"),
        ({"trust-remote-code": "maybe", "model-name-or-path": "a/b"}, "trust-remote-code is 'maybe', but"),
    ],
)
def test_values_that_cannot_be_are_one_sentence_with_their_place(tmp_path: Path, fixed: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(tmp_path, fixed)
    if isinstance(fixed, dict) and "seed" not in fixed:
        with pytest.raises(UserError, match=sentence) as caught:
            made(tmp_path, TEMPLATED, {"name": "mine", "args": fixed})
        assert "mine: " in str(caught.value)


@pytest.mark.parametrize("content", [None, "not json", "[1]", '{"model_type": "opt"}', b"\xff\xfe"])
def test_a_shape_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: str | bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = tmp_path / "config.json"
    if content is not None:
        shape.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "f.yaml").write_text("experiments: [{name: a, args: {model-name-or-path: o/m}}]\n")
    assert main(["convert", str(tmp_path / "f.yaml"), "--shape", f"o/m={shape}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("memgap: ") and "config.json" in told and "Traceback" not in told


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FLAGS, *TREATED, "seed", "qos"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-3, 2**70)
            | st.floats()
            | st.sampled_from(["", "none", "[[DOCUMENT]]", "1e3"]),
            lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from("ab"), one, max_size=2),
            max_leaves=4,
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_no_value_ends_in_a_traceback(args: dict[str, Any], fixed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError):
        made(Path(folder), args if fixed else {}, {"name": "tier1", "args": {} if fixed else args})
