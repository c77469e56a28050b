"""YAML means what was written: keys once, numbers as they look, whole floats whole, texts as texts."""

import ast
from pathlib import Path
from typing import Any

import pytest

from memgap.cluster.site import read_site
from memgap.config.files import read_config_files
from memgap.config.load import check_config
from memgap.config.reading import check_files, read_yaml
from memgap.errors import UserError
from memgap.own_yaml import as_number
from memgap.planner.fleet import read_fleet
from memgap.workflow import load_study
from tests.support.records import small_config

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE_WRITTEN = {
    "src/memgap/config/load.py",
    "src/memgap/roofline/gpus.py",
    "src/memgap/profiling/classes.py",
    "src/memgap/models/registry.py",
    "src/memgap/tables/documents.py",
}
"""These read the package's own tables and what memgap itself wrote."""


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_yaml(text, "c.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "first", "second"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 1, 3),
        ("x:\n  load: {requests: 1,\n    requests: 2}\n", "requests", 2, 3),
        ("- a: 1\n  'a': 2\n", "a", 1, 2),
        ('{"a": 1,\n "a": 2}', "a", 1, 2),
        ("a: &b {c: 1}\nd:\n  <<: *b\n  e: 1\n  e: 2\n", "e", 4, 5),
        ("5: a\n5: b\n", "5", 1, 2),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_both_lines(text: str, key: str, first: int, second: int) -> None:
    assert f"c.yaml, line {second}: the key {key!r} is there already in line {first}" in refusal(text)


def test_a_merged_key_may_be_overridden() -> None:
    assert read_yaml("a: &b {c: 1, d: 1}\ne:\n  <<: *b\n  c: 2\n", "c.yaml")["e"] == {"c": 2, "d": 1}


def test_every_file_that_people_write_is_read_so(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("gpus: []\nmodels: {}\ngpus: []\n")
    for read in (lambda p: read_config_files([p]), read_site, read_fleet, lambda p: check_files([p])):
        with pytest.raises(UserError, match=r"f\.yaml, line 3: the key 'gpus' is there already in line 1"):
            read(path)


def test_yaml_of_people_is_read_nowhere_else() -> None:
    loading = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("yaml.")
        and "load" in ast.unparse(node.func)
    }
    assert loading <= MACHINE_WRITTEN, "use memgap.config.reading.read_yaml"


def test_files_that_snakemake_reads_are_checked_and_others_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("a: 1\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    check_files([tmp_path / "good.yaml", tmp_path / "absent.yaml", tmp_path / "bytes.yaml"])
    assert "check_files(workflow.configfiles)" in (REPOSITORY / "workflow/rules/common.smk").read_text()


# --- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [("0777", 511), ("007", 7), ("1_000", 1000), ("12:30", 750), ("1:30:05", 5405), ("1_0.5", 10.5), ("-012", -10)],
)
def test_numbers_that_yaml_reads_otherwise_are_refused(written: str, read: float) -> None:
    said = refusal(f"a: 1\nb:\n  - {written}\n")
    assert f"c.yaml, line 3: YAML reads {written} as the number {read}" in said and f"'{written}' for a text" in said


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0", 0),
        ("10", 10),
        ("0.5", 0.5),
        ("-0.25", -0.25),
        ("0x1F", 31),
        ("1.0e+3", 1000.0),
        ("'0777'", "0777"),
        ("'1_000'", "1_000"),
        ("a_b", "a_b"),
        ("12:30:xx", "12:30:xx"),
        ("08", "08"),
        (".5", 0.5),
    ],
)
def test_others_are_read_as_ever(written: str, read: Any) -> None:
    assert read_yaml(f"a: {written}\n", "c.yaml") == {"a": read}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e3", 1000),
        ("2.5E-4", 2.5e-4),
        ("1.5e1", 15),
        ("+1e2", 100),
        ("1e400", None),
        ("e3", None),
        ("8", None),
        ("1e3x", None),
        ("", None),
        ("1_0e3", None),
        (".5e1", 5),
    ],
)
def test_exponents_without_a_sign_are_numbers(text: str, number: float | None) -> None:
    assert as_number(text) == number and type(as_number(text)) is type(number)


def measured(path: Path, arguments: str) -> Any:
    """Return the study of a file of one sweep with further arguments of that text."""
    path.write_text(
        "engines: {mock: {adapter: mock}}\n"
        "models: {tiny-opt: {weights: synthetic, dtype: bfloat16}}\n"
        "datasets: {short: {kind: random, requests: 64, prompt_tokens: 12, output_tokens: 8}}\n"
        "sweeps:\n  s:\n    fixed: {engine: mock, model: tiny-opt, dataset: short}\n"
        f"    experiments:\n      one: {{{arguments}}}\n"
    )
    return load_study(read_config_files([path]))


LOADS = ("warmup_requests", "client_processes", "seed")
BURSTS = "batch_cap: 2, cap_side: server, load: {arrival: bursts, requests: 9"


@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ("batch_cap: 2, load: {requests: 20}", "batch_cap: 2.0, load: {requests: 2.0e+1}"),
        ("batch_cap: [2, 20], load: {requests: 20}", "batch_cap: [2.0, 2e1], load: {requests: 2e1}"),
        ("batch_cap: 2, repeats: 2, load: {requests: 20}", "batch_cap: 2, repeats: 2.0, load: {requests: 20}"),
        ("batch_cap: 2, replicas: 2, load: {requests: 20}", "batch_cap: 2, replicas: 2.0, load: {requests: 20}"),
        *(
            (
                f"batch_cap: 2, load: {{requests: 20, {name}: 2}}",
                f"batch_cap: 2, load: {{requests: 20, {name}: {value}}}",
            )
            for name in LOADS
            for value in ("2.0", "0.2e1")
        ),
        (
            "batch_cap: 2, load: {requests_per_slot: 20, min_requests: 30}",
            "batch_cap: 2, load: {requests_per_slot: 2e1, min_requests: 3e1}",
        ),
        (
            "batch_cap: 2, load: {requests: 20, arrival: constant, rate_req_s: [1000, 20]}, cap_side: server",
            "batch_cap: 2, load: {requests: 20, arrival: constant, rate_req_s: [1e3, 2E1]}, cap_side: server",
        ),
        (
            BURSTS + ", burst_requests: 4, burst_every_s: 0.5}",
            BURSTS + ", burst_requests: 4.0, burst_every_s: 5e-1}",
        ),
        (
            "batch_cap: 2, load: {requests: 20}, server: {max-model-len: [100, 200]}",
            "batch_cap: 2, load: {requests: 20}, server: {max-model-len: [1e2, 200.0]}",
        ),
    ],
)
def test_a_number_is_the_same_however_it_is_written(tmp_path: Path, plain: str, other: str) -> None:
    expected = measured(tmp_path / "c.yaml", plain)
    assert list(measured(tmp_path / "c.yaml", other).points) == list(expected.points)


def test_fractions_stay_fractions() -> None:
    config = small_config(server={"step-base-ms": 4.0, "gpu-memory-utilization": "9e-1"}, env={"X": "1e3"})
    fixed = check_config(config)["sweeps"]["small"]["fixed"]
    assert repr(fixed["server"]["step-base-ms"]) == "4.0"
    assert fixed["server"]["gpu-memory-utilization"] == 0.9
    assert fixed["env"] == {"X": "1e3"}
    with pytest.raises(UserError, match=r"batch_cap.*2\.5"):
        check_config(small_config(batch_cap=2.5))


def test_datasets_and_other_sections_have_whole_numbers_too() -> None:
    config = small_config()
    config["datasets"]["short"] |= {"requests": 64.0, "seed": "1e1"}
    config["resources"] = {"cpus": 4.0, "mem_mb": "4e3"}
    config["collectors"] = {"interval_s": "1e-1"}
    checked = check_config(config)
    assert repr(checked["datasets"]["short"]["requests"]) == "64" and checked["datasets"]["short"]["seed"] == 10
    assert repr([checked["resources"][name] for name in ("cpus", "mem_mb")]) == "[4, 4000]"
    assert checked["collectors"]["interval_s"] == 0.1


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"), [(4, "4"), (True, "true"), (1.5, "1.5"), (["a", 4], "4"), ([False, "a"], "false"), (0, "0")]
)
def test_a_text_that_yaml_took_for_something_else_is_asked_for_in_quotes(value: Any, written: str) -> None:
    with pytest.raises(UserError, match=rf"env\.K: {written} is not of type 'string': .*such as '{written}'"):
        check_config(small_config(env={"K": value}))


@pytest.mark.parametrize("value", [None, ["a", None]])
def test_a_text_that_is_not_there_is_asked_for(value: Any) -> None:
    with pytest.raises(UserError, match=r"env\.K: nothing stands there; write '' for an empty text"):
        check_config(small_config(env={"K": value}))


def test_names_and_revisions_too() -> None:
    with pytest.raises(UserError, match=r"fixed\.model: 70 is not of type 'string': .*put it in quotes"):
        check_config(small_config(model=70))
    config = small_config()
    config["models"]["tiny-opt"]["revision"] = 2505
    with pytest.raises(UserError, match=r"revision: 2505 is not of type 'string'"):
        check_config(config)


@pytest.mark.parametrize(
    "written",
    [
        "004711",
        "0777",
        "1_000",
        "1e3",
        "2024-05-10",
        "no",
        "on",
        "Yes",
        "true",
        "12:30:45",
        "0x1F",
        "1.10",
        "3.",
        "2024-13-99",
    ],
)
@pytest.mark.parametrize("field", ["account", "qos", "partition", "constraint", "reservation", "gpu_model"])
def test_texts_of_a_site_are_taken_as_they_are_written(tmp_path: Path, field: str, written: str) -> None:
    (tmp_path / "site.yaml").write_text(f"{field}: {written}   # a comment\n")
    assert getattr(read_site(tmp_path / "site.yaml"), field) == written


def test_what_a_site_leaves_empty_is_left_to_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("account:\nqos: null\npartition: ~\nconstraint: ''\nreservation: 'null'\n")
    site = read_site(tmp_path / "site.yaml")
    assert (site.account, site.qos, site.partition, site.constraint, site.reservation) == (
        None,
        None,
        None,
        None,
        "null",
    )


def test_other_fields_of_a_site_keep_their_kinds(tmp_path: Path) -> None:
    text = "jobs: 20.0\nretries: 1e1\nexclusive: yes\nnvidia: false\nsbatch_options: [--qos=0777]\n"
    (tmp_path / "site.yaml").write_text(text)
    site = read_site(tmp_path / "site.yaml")
    assert (site.jobs, site.retries, site.exclusive, site.nvidia) == (20, 10, True, False)
    assert site.sbatch_options == ("--qos=0777",)
    for wrong in ("jobs: 010", "jobs: 2.5", "account: [a]", "account: {a: b}", "exclusive: 1"):
        (tmp_path / "site.yaml").write_text(wrong)
        with pytest.raises(UserError, match=wrong.partition(":")[0]):
            read_site(tmp_path / "site.yaml")
