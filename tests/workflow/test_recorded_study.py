"""Anybody redraws the recorded study without a GPU, with the documented command."""

import subprocess
from pathlib import Path

import pandas as pd
import yaml

from .conftest import REPOSITORY, SNAKEMAKE

FIGURES = ("fig02", "fig03", "fig10", "fig11", "fig12", "fig13", "roofline")


def test_figures_and_tables_of_the_recorded_study(tmp_path: Path) -> None:
    command = [SNAKEMAKE, "-j2", "figures", "tables", "--configfile", str(REPOSITORY / "config/recorded.yaml")]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "nothing was measured" in printed
    for name in FIGURES:
        for kind in ("pdf", "png", "csv"):
            assert (tmp_path / f"figures/{name}.{kind}").stat().st_size > 0
    table = pd.read_csv(tmp_path / "results/tables/online.csv")
    assert set(table["source"].dropna()) == {"recorded"}
    assert table.loc[table["status"] == "not_needed", "model"].tolist() == ["llama-2-13b"], "nothing else is missing"
    claims = pd.read_csv(tmp_path / "results/tables/claims.csv").set_index(["claim", "model"])
    assert claims.loc[("Batching multiplies throughput over batch 1", "opt-1.3b"), "verdict"] == "holds"
    assert claims.loc[("Replicas under MPS beat one server at MAX", "opt-1.3b"), "verdict"] == "does not hold"
    assert len(pd.read_csv(tmp_path / "results/tables/tab04.csv")) >= 20
    assert len(pd.read_csv(tmp_path / "results/tables/roofline_error.csv")) == 139, "every recorded point is compared"
    assert len(pd.read_csv(tmp_path / "results/tables/other-gpus.predictions.csv")) == 90
    advice = yaml.safe_load((tmp_path / "results/advisor/opt-1.3b.yaml").read_text())
    assert advice["b_opt"] == 96
    for model in ("opt-1.3b", "opt-2.7b", "llama-2-7b", "llama-2-13b"):
        verified = yaml.safe_load((tmp_path / f"results/advisor/{model}.verified.yaml").read_text())
        assert verified["holds"] is not None or "Not measured: the recorded data" in verified["sentence"]
    again = subprocess.run([*command, "--quiet"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "Nothing to be done" in again.stdout + again.stderr or again.stderr.strip() == ""


def test_the_same_study_can_be_measured(tmp_path: Path) -> None:
    command = [SNAKEMAKE, "--dry-run", "--configfile", str(REPOSITORY / "config/recorded.yaml"), "--directory"]
    command += [str(tmp_path), "--snakefile", str(REPOSITORY / "Snakefile"), "--config", "recorded=null"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "synthetic_model" in done.stdout + done.stderr, "models are made where servers are to be started"
