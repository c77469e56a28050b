"""The command line: where, unlock, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from memgap import cli
from memgap.errors import UserError
from memgap.script import run_script, script_parser
from tests.support.records import small_config
from tests.support.waiting import until


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """Return a folder with the lock of a killed Snakemake."""
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("")
    (tmp_path / ".snakemake/metadata").mkdir()
    return tmp_path


def is_locked(folder: Path) -> bool:
    """Whether the lock is there."""
    return (folder / ".snakemake/locks/0.input.lock").exists()


def test_a_stale_lock_is_removed_and_nothing_else(locked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["unlock", "--directory", str(locked)]) == 0
    assert "removed it" in capsys.readouterr().out
    assert not is_locked(locked)
    assert (locked / ".snakemake/metadata").is_dir()
    assert cli.main(["unlock", "--directory", str(locked)]) == 0
    assert capsys.readouterr().out == ""


def test_the_lock_of_a_running_snakemake_stays(locked: Path, tmp_path: Path) -> None:
    script = tmp_path / "snakemake"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, cwd=locked, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert cli.main(["unlock", "--directory", str(locked)]) == 0
        assert is_locked(locked)
        driver.kill()
    until(lambda: cli.main(["unlock", "--directory", str(locked)]) == 0 and not is_locked(locked))


def test_a_snakemake_elsewhere_does_not_keep_the_lock(locked: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "snakemake").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    command = [sys.executable, str(elsewhere / "snakemake")]
    with subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert cli.main(["unlock", "--directory", str(locked)]) == 0
        driver.kill()
    assert not is_locked(locked)


def test_unlock_without_a_lock_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["unlock", "--directory", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_where_names_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**small_config(), "figures": {"fig02": {"sweep": "small"}}}))
    assert cli.main(["where", "--configfile", str(tmp_path / "c.yaml")]) == 0
    printed = capsys.readouterr().out
    for name in ("figures/fig02.pdf", "results/advisor/tiny-opt.yaml", "results/tables/small.csv"):
        assert name in printed


def test_no_command_and_an_unknown_one_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["lst"], ["list", "--format", "xml"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    assert "usage: memgap" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_config()))
    command = [sys.executable, "-m", "memgap", "list", "--configfile", str(tmp_path / "c.yaml")]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    process.stderr.close()


def test_a_script_tells_a_mistake_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def mistaken() -> None:
        raise UserError("it is wrong here; do that.")

    assert run_script(mistaken) == 2
    assert capsys.readouterr().err == "memgap: it is wrong here; do that.\n"
    assert run_script(lambda: None) == 0
    options = script_parser("x").parse_args(["--config", "c.json", "--name", "n"])
    assert (options.plan, options.config, options.name) == (None, Path("c.json"), "n")
