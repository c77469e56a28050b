"""The site file: what reaches Snakemake's options, and that nothing with a meaning to a shell gets through."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.cluster.site import Site, chosen_site, profile_site, read_site, site_path
from memgap.errors import UserError

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
HOSTILE = ["a b", "a;rm -rf ~", "$(id)", "`id`", "a\nb", "a'b", 'a"b', "../x y", "a|b", "a>b", "-x", "a\\b"]
WORDS = [field.name for field in fields(Site) if field.default is None]
LISTS = [field.name for field in fields(Site) if field.default == ()]


def site_of(tmp_path: Path, **content: Any) -> Site:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_site(path)


def test_the_example_is_valid_and_names_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/scratch/me")
    path = PROFILES / "slurm" / "site.example.yaml"
    assert yaml.safe_load(path.read_text()).keys() == {field.name for field in fields(Site)}
    example = read_site(path)
    assert example.sbatch_extra() == "--signal=TERM@120 --mail-type=FAIL --exclude=node7"
    assert example.apptainer_args() == "--nv --bind /gpfs/projects/proj0815 --bind /scratch/me:/tmp"
    assert "slurm_partition='acc'" in example.default_resources()


def test_the_profile_takes_its_values_from_the_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site_of(tmp_path, account="me", exclusive=True, containers=False, status_command="squeue", jobs=3)
    monkeypatch.setenv("MEMGAP_SITE", str(tmp_path / "site.yaml"))
    with (PROFILES / "slurm" / "config.yaml").open() as file:
        profile = yte.process_yaml(file, require_use_yte=True)
    assert profile["executor"] == "slurm"
    assert profile["default-resources"] == [
        "mem_mb=2000",
        "runtime=30",
        "slurm_account='me'",
        "slurm_extra='--signal=TERM@120 --exclusive'",
    ]
    assert (profile["jobs"], profile["slurm-status-command"]) == (3, "squeue")
    assert "apptainer-args" not in profile


@pytest.mark.parametrize("text", HOSTILE)
def test_words_with_a_meaning_to_a_shell_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"account: .* has characters that do not belong there"):
        site_of(tmp_path, account=text)


@pytest.mark.parametrize("field", WORDS)
def test_every_word_is_looked_at(tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=f"{field}: .* has characters that do not belong there"):
        site_of(tmp_path, **{field: "a;b"})


@pytest.mark.parametrize("field", LISTS)
@pytest.mark.parametrize("text", ["$(id)", "--x=$HOME/a b"])
def test_so_is_every_entry_of_a_list(tmp_path: Path, field: str, text: str) -> None:
    with pytest.raises(UserError, match=field):
        site_of(tmp_path, **{field: [text]})


def test_a_constraint_may_name_either_of_two_features(tmp_path: Path) -> None:
    assert "constraint='a|b'" in site_of(tmp_path, constraint="a|b").default_resources()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"partitoin": "gpu"}, "unknown field 'partitoin'; known are account"),
        ({"jobs": -1}, "jobs is a whole number, not -1"),
        ({"exclusive": "yes please"}, "exclusive is true or false"),
        ({"binds": "/scratch"}, "binds is a list"),
        ({"status_command": "qstat"}, "status_command is one of auto, sacct, squeue"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        site_of(tmp_path, **content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=20, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4), st.text())
def test_no_content_ends_in_a_traceback(value: Any, name: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for content in (value, {name: value}, {"binds": value}, {"partition": value}):
            path = Path(folder) / "site.yaml"
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            try:
                words = " ".join(read_site(path).default_resources())
            except UserError:
                continue
            assert not set(words) & set(";|`$<>\\\n")


def test_a_broken_site_file_ends_snakemake_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMGAP_SITE", str(tmp_path / "absent.yaml"))
    with pytest.raises(SystemExit):
        profile_site([])
    assert capsys.readouterr().err.startswith("memgap: cannot read the site file")


def test_the_site_file_is_beside_the_profile_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMGAP_SITE", raising=False)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    (tmp_path / "site.yaml").touch()
    assert site_path(["snakemake", "--profile", str(tmp_path)]) == tmp_path / "site.yaml"
    assert site_path([f"--profile={tmp_path}"]) == tmp_path / "site.yaml"
    assert site_path(["snakemake"]) == Path("profiles/slurm/site.yaml")
    assert chosen_site(["--profile", str(tmp_path / "elsewhere")]) == Site()
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    assert site_path([]) == tmp_path / "site.yaml"


@pytest.mark.parametrize(
    ("storage", "programs", "expected"),
    [
        ("accounting_storage/slurmdbd", ["scontrol", "sacct"], "sacct"),
        ("accounting_storage/slurmdbd", ["scontrol"], "squeue"),
        ("accounting_storage/none", ["scontrol", "sacct"], "squeue"),
        ("(null)", ["scontrol", "sacct"], "squeue"),
        ("accounting_storage/slurmdbd", ["sacct"], None),
    ],
)
def test_the_status_command_follows_the_cluster_s_accounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, programs: list[str], expected: str | None
) -> None:
    for name in programs:
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'AccountingStorageType   = {storage}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Site().known_status_command() == expected
    assert Site(status_command="sacct").known_status_command() == "sacct"


def test_a_word_may_be_named_and_used_again(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("account: &mine 004711\nqos: *mine\npartition: 12:30\n")
    found = read_site(path)
    assert (found.account, found.qos, found.partition) == ("004711", "004711", "12:30")
