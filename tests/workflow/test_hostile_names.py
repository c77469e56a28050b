"""Hostile names through the real Snakefile: refused with one sentence, or carried as what they are; nothing is run."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.engine.adapters import adapter_for
from memgap.errors import UserError
from memgap.workflow import load_study
from tests.support.configs import change
from tests.support.studies import REPOSITORY, Study

pytestmark = pytest.mark.workflow

HOSTILE = (
    *(
        "a b",
        "a'b",
        'a"b',
        "a;touch canary",
        "$(touch canary)",
        "`touch canary`",
        "a\ntouch canary",
        "x\n",
        "../../canary",
    ),
    *(
        "-rf",
        "--trust-remote-code",
        "a|touch canary",
        "a&touch canary&",
        "é/canary",
        "{canary}",
        "{wildcards.canary}",
        "*",
    ),
)


def harmless(config: dict[str, Any]) -> bool:
    """Expand a configuration; false where it is refused, which takes one line."""
    try:
        load_study(config)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_things_are_refused(study: Study, name: str) -> None:
    for part, value in (
        ("models", {}),
        ("datasets", study.config["datasets"]["short"]),
        ("engines", {"adapter": "mock"}),
    ):
        config = check_config(study.config)
        config[part][name] = value
        assert not harmless(config), f"{part}: {name!r}"
    for part in ("sweeps", "figures"):
        config = check_config(study.config)
        config[part] = {**config[part], name: {"sweep": "small"} if part == "figures" else config["sweeps"]["small"]}
        assert not harmless(config), f"{part}: {name!r}"
    for place in ("model", "dataset", "engine"):
        config = check_config(study.config)
        config["sweeps"]["small"]["fixed"][place] = name
        assert not harmless(config), f"{place}: {name!r}"
    for place in ("server", "env"):
        config = check_config(study.config)
        config["sweeps"]["small"]["fixed"][place] = {name: "x"}
        assert not harmless(config), f"a key of {place}: {name!r}"


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("../../canary",)])
def test_hostile_images_are_refused(study: Study, name: str) -> None:
    """Snakemake puts an image's name into a shell command as it is."""
    study.config["engines"]["mock"]["image"] = name
    assert not harmless(study.config), name


@pytest.mark.parametrize("name", [name for name in HOSTILE if set(name) & set("'\"`$;&|{}*\n")])
def test_hostile_scheduler_options_are_refused(study: Study, name: str) -> None:
    """Executors put them into the command that submits a job; whatever strings the schema comes to allow there."""
    study.config["resources"] = {"partition": name}
    with pytest.raises(UserError, match=r"^config: resources"):
        check_config(study.config)


def test_values_reach_the_server_as_they_are(study: Study) -> None:
    """Flags and variables may hold anything but NUL: they are items of an argument list."""
    for value in HOSTILE:
        study.fixed["server"] = {"served-note": value}
        study.fixed["env"] = {"NOTE": value}
        (record, *_) = [point.record for point in load_study(study.config).points.values()]
        launch = adapter_for("vllm").launch("/py thon", record, "/a model;x", 1234, "key")
        assert launch.argv[0] == "/py thon" and "/a model;x" in launch.argv
        assert (f"--served-note={value}" if value.startswith("-") else value) in launch.argv
        assert launch.env["NOTE"] == value
        assert "key" not in launch.argv and "--trust-remote-code" not in launch.argv


def test_nothing_is_run_from_paths_flags_and_variables(study: Study, tmp_path: Path) -> None:
    """The whole workflow in a folder with a hostile name, with hostile paths and values, on the simulated engine."""
    hostile = tmp_path / "a b;touch canary;$(touch canary) 'q' é"
    hostile.mkdir()
    study.folder = hostile
    del study.config["figures"]["fig03"], study.config["figures"]["fig10"]
    study.config["datasets"]["traced"] = {"kind": "trace", "path": "t $(touch canary);'x'.csv", "requests": 2}
    (hostile / "t $(touch canary);'x'.csv").write_text("Timestamp,Request tokens,Response tokens\n0,8,4\n0.01,8,4\n")
    study.config["sweeps"]["small"]["fixed"] |= {"batch_cap": 1, "env": {"NOTE": "$(touch canary)\n`touch canary`;'\""}}
    study.config["sweeps"]["small"]["experiments"] = {
        "a": {},
        "b": {"cap_side": "server", "dataset": "traced", "load": {"arrival": "trace", "requests": 2}},
    }
    study.config["engines"]["mock"]["python"] = "py;touch canary"
    study.run()
    assert [point["status"] for point in study.points().values()] == ["ok"]
    assert (hostile / "figures/fig02.pdf").exists()
    found = [*tmp_path.rglob("canary*"), *REPOSITORY.glob("canary*"), *Path.cwd().glob("canary*")]
    assert found == []
    writable = [path for path in hostile.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o002]
    assert writable == []


def test_paths_of_jobs_are_quoted_in_what_snakemake_would_run(study: Study) -> None:
    study.folder /= "with space; touch canary"
    study.folder.mkdir()
    printed = study.run("--dry-run", "--printshellcmds")
    commands = [line for line in printed.splitlines() if "run_session.py" in line and "python" in line]
    assert commands
    done = subprocess.run(["bash", "-n", "-c", "\n".join(commands)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_refusal_is_one_sentence_of_the_real_snakefile(study: Study) -> None:
    change("engines.mock.image", "x.sif; touch canary")(study.config)
    printed = study.run("--dry-run", expect=1)
    assert "cannot be the name of an image" in printed
    assert "Traceback" not in printed
    assert not list(study.folder.rglob("canary*")) and not (Path(os.curdir) / "canary").exists()
