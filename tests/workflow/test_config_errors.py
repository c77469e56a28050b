"""A broken configuration ends Snakemake with one clear sentence."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from memgap.config.files import read_config_files
from memgap.errors import UserError
from memgap.workflow import load_study
from tests.support.configs import change
from tests.support.studies import REPOSITORY, SNAKEMAKE, Study

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (change("sweeps.small.fixed.batchcap", 3), "unknown key 'batchcap' (did you mean 'batch_cap'?)"),
        (change("sweeps.small.fixed.model", "opt-1.3"), "unknown model 'opt-1.3'"),
        (change("sweeps.small.fixed.engine", "moc"), "unknown engine 'moc' (did you mean 'mock'?); known are mock"),
        (change("sweeps.small.fixed.dataset", "long"), "unknown dataset 'long'; known are short"),
        (change("figures.fig02.sweep", "smal"), "unknown sweep 'smal' (did you mean 'small'?); known are small"),
        (change("sweeps.small.fixed.cap_side", "clint"), "did you mean 'client'?"),
        (change("sweeps.small.fixed.load.requests", 65), "datasets.short.requests is 64; raise it"),
        (change("sweeps.small.fixed.server.port", 80), "is set by memgap itself"),
    ],
)
def test_one_sentence(study: Study, broken: Callable[[dict[str, Any]], None], sentence: str) -> None:
    broken(study.config)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load_study(study.config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (change("sweeps.small.fixed.batchcap", 3), "unknown key 'batchcap' (did you mean 'batch_cap'?)"),
        (change("sweeps.small.fixed.load.requests", 65), "datasets.short.requests is 64; raise it"),
    ],
    ids=["against the schema", "against the rest"],
)
def test_the_snakefile_says_it_without_a_traceback(
    study: Study, broken: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    broken(study.config)
    printed = study.run("--dry-run", expect=1)
    assert sentence in printed
    assert "Traceback" not in printed


def test_invalid_yaml_is_one_sentence_and_the_listing_names_the_line(study: Study) -> None:
    command = study.command("--dry-run")
    (study.folder / "config.yaml").write_text("sweeps: {small: [}\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 1
    assert "not valid JSON or YAML" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    with pytest.raises(UserError, match=r"config.yaml, line 1: not valid YAML"):
        read_config_files([study.folder / "config.yaml"])


@pytest.mark.parametrize("name", ["config", "paper", "smoke"])
def test_shipped_configurations_expand(name: str) -> None:
    command = [SNAKEMAKE, "--dry-run", "--quiet", "rules", "--directory", str(REPOSITORY)]
    done = subprocess.run(
        [*command, "--configfile", f"config/{name}.yaml"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_papers_sweep_is_the_papers(study: Study) -> None:
    paper = load_study(read_config_files([REPOSITORY / "config/paper.yaml"]))
    caps: dict[str, list[int]] = {}
    for _, key in paper.sweeps["online"]:
        record = paper.points[key].record
        caps.setdefault(record["model"]["name"], []).append(record["batch_cap"])
        assert record["server"]["args"]["max-num-seqs"] == record["batch_cap"]
        assert record["load"]["requests"] == 2000
        assert record["load"]["arrival"] == "all-at-once"
        assert record["model"]["dtype"] == "float16"
    assert {model: len(found) for model, found in caps.items()} == {
        "opt-1.3b": 15,
        "opt-2.7b": 13,
        "llama-2-7b": 12,
        "llama-2-13b": 14,
    }
    assert max(caps["opt-1.3b"]) == 768
