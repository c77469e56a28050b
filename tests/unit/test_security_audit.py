"""`make audit`: what it says of vulnerabilities, and that without the service it fails loudly."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("said", "exits", "status", "wanted"),
    [
        ("No known vulnerabilities found", 0, 0, "No known vulnerabilities found"),
        ("Found 1 known vulnerability in 1 package", 1, 1, "Found 1 known vulnerability"),
        ("ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed", 1, 3, "NOT AUDITED: envs/"),
    ],
    ids=["clean", "found", "no service"],
)
def test_what_an_audit_comes_to(tmp_path: Path, said: str, exits: int, status: int, wanted: str) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f'#!/bin/sh\ncat <<"END"\n{said}\nEND\nexit {exits}\n')
    program.chmod(0o755)
    done = subprocess.run(
        [str(REPOSITORY / ".ci/audit")],
        env={**os.environ, "PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert wanted in done.stdout + done.stderr
    assert status == 3 or done.stdout.count("== envs/") == len(list((REPOSITORY / "envs").glob("*.txt")))
