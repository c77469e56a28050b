"""Definition files, Dockerfile, lock and builder agree; nothing is built from a value that is not there."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from memgap.errors import UserError
from memgap.install import images
from memgap.install.image_lock import ImageLock, read_lock
from memgap.install.images import PARENTS, Settings, build_arguments, chain, definition, docker_command

ENVS = Path(__file__).resolve().parents[2] / "envs"
SETTINGS = Settings(ENVS)
DEFINITIONS = sorted((ENVS / "images").glob("*.def"))
DOCKERFILE = (ENVS / "Dockerfile").read_text()


def sections(path: Path) -> dict[str, str]:
    """Return the sections of a definition file by name; "" is the header."""
    parts = re.split(r"(?m)^%(\w+).*$", path.read_text())
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def defaults(path: Path) -> dict[str, str]:
    """Return the variables of a definition file with their values."""
    lines = sections(path).get("arguments", "").split("\n")
    return dict(line.strip().split("=", 1) for line in lines if line.strip())


def docker_values() -> dict[str, str]:
    """Return the variables of the Dockerfile with their values."""
    found = re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def steps(text: str) -> list[str]:
    """Return the steps of steps.sh that a file runs, with an engine's kind."""
    return re.findall(r"steps\.sh\W+(system|workflow|profilers|engine\W+(?:cpu|cuda))", text)


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_each_definition_says_where_it_starts_and_tests_itself(path: Path) -> None:
    found = sections(path)
    assert re.search(r"^Bootstrap: (docker|debootstrap|localimage)$", found[""], re.MULTILINE)
    assert found["test"].strip()
    assert found["help"].strip()
    used = set(re.findall(r"\{\{ (\w+) \}\}", path.read_text()))
    assert used == set(defaults(path))


def test_nothing_floats() -> None:
    for path in [*DEFINITIONS, ENVS / "Dockerfile", ENVS / "images.yaml", ENVS / "images/steps.sh"]:
        assert "latest" not in path.read_text(), path
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert image == "${BASE}" or image in PARENTS
    assert re.fullmatch(r"docker\.io/\S+@sha256:[0-9a-f]{64}", docker_values()["BASE"])
    pip_installs = re.findall(r"pip install .*", (ENVS / "images/steps.sh").read_text())
    assert all("--require-hashes" in one or '--no-deps --no-build-isolation "$SOURCE"' in one for one in pip_installs)
    assert len(pip_installs) == 2


@pytest.mark.parametrize("kind", PARENTS)
def test_definition_dockerfile_and_lock_say_the_same(kind: str) -> None:
    values = build_arguments(kind, read_lock(ENVS), SETTINGS, Path("parent.sif"))
    given = defaults(definition(kind, SETTINGS))
    assert set(values) == set(given)
    own = {name: value for name, value in given.items() if name not in ("from", "commit")}
    assert own == {name: values[name] for name in own}
    for name, value in own.items():
        assert docker_values()[name.upper()] == value
    if PARENTS[kind] is not None:
        assert given["from"] == f"{PARENTS[kind]}.sif"


@pytest.mark.parametrize("kind", PARENTS)
def test_the_dockerfile_takes_the_same_steps(kind: str) -> None:
    stages = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    stage = next(one for one in stages if one.splitlines()[0].endswith(f" AS {kind}"))
    parent = PARENTS[kind]
    assert stage.startswith(f"{parent} AS" if parent else "${BASE} AS")
    text = definition(kind, SETTINGS).read_text()
    assert [re.sub(r"\W+", " ", one) for one in steps(stage)] == [re.sub(r"\W+", " ", one) for one in steps(text)]
    engine = re.search(r"MEMGAP_ENGINE_PYTHON=(/\S+)", text)
    if engine is not None:
        assert f"MEMGAP_ENGINE_PYTHON={engine[1]}" in DOCKERFILE


def test_base_from_packages_has_the_archive_of_the_lock() -> None:
    settings = Settings(ENVS, bootstrap="debootstrap")
    assert defaults(definition("base", settings)) == build_arguments("base", read_lock(ENVS), settings, None)
    mirrored = build_arguments("base", read_lock(ENVS), Settings(ENVS, "debootstrap", "http://mirror/"), None)
    assert mirrored["debian"] == "http://mirror/debian"


def test_an_engines_image_has_the_workflow_in_it() -> None:
    assert chain("engine-cuda-profilers") == ["base", "analysis", "engine-cuda", "engine-cuda-profilers"]
    assert chain("engine-cpu") == ["base", "analysis", "engine-cpu"]


@pytest.mark.parametrize(
    ("section", "name", "kind", "value"),
    [
        ("base", "digest", "analysis", ""),
        ("base", "digest", "engine-cuda", "sha256:0"),
        ("debian", "date", "engine-cpu", None),
        ("profilers", "keyring_sha256", "engine-cuda-profilers", ""),
    ],
)
def test_a_value_that_is_not_there_is_no_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, name: str, kind: str, value: str | None
) -> None:
    content = yaml.safe_load((ENVS / "images.yaml").read_text())
    content[section][name] = value
    (tmp_path / "images.yaml").write_text(yaml.safe_dump(content))
    assert images.main(["--envs", str(tmp_path), "build", kind, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert f"{section}.{name} is" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_profiler_without_a_version_is_no_build() -> None:
    with pytest.raises(UserError, match=r"profilers\.packages needs a version"):
        ImageLock(Path("lock"), {"profilers": {"repository": "r", "packages": {"nsys": None}}}).profilers()


@pytest.mark.parametrize("text", ["[]", "a: [", None])
def test_a_lock_that_is_none_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "images.yaml").write_text(text)
    with pytest.raises(UserError, match=r"images\.yaml"):
        read_lock(tmp_path)


def test_without_apptainer_docker_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main(["--envs", str(ENVS), "build", "mock", "--out", str(tmp_path / "out")]) == 2
    assert "apptainer is not on the PATH" in capsys.readouterr().err


def test_dockers_command_has_every_value_of_the_lock() -> None:
    command = docker_command("engine-cuda-profilers", read_lock(ENVS), SETTINGS)
    given = dict(one.split("=", 1) for flag, one in itertools.pairwise(command) if flag == "--build-arg")
    assert given.pop("COMMIT")
    assert given == {name: value for name, value in docker_values().items() if name != "COMMIT"}
    assert shlex.split(shlex.join(command)) == command


def test_an_engine_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no engine is installed there"):
        images.check_engine(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "memgap-engine.json").write_text('{"package": "vllm", "version": "1"}')
    python = tmp_path / "bin/python"
    python.write_text("#!/bin/sh\necho 2\n")
    os.chmod(python, 0o755)
    with pytest.raises(UserError, match="vllm 1 does not start"):
        images.check_engine(tmp_path)
    python.write_text("#!/bin/sh\necho 1\n")
    assert images.check_engine(tmp_path) == "vllm 1"


def test_the_modules_that_steps_run_do_something() -> None:
    for module in re.findall(r"-m (memgap[\w.]+)", (ENVS / "images/steps.sh").read_text()):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        assert "usage:" in done.stdout, module
