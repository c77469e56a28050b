"""Anybody redraws the recorded study without a GPU, with the documented command."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.support.studies import REPOSITORY, SNAKEMAKE

FIGURES = (*(f"fig{number:02d}" for number in range(1, 14)), "roofline", "timeshare")


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
    assert claims.loc[("DRAM read saturates in attention at MAX", "opt-1.3b"), "verdict"] == "does not hold"
    assert claims.loc[("Replicas under MPS beat one server at MAX", "opt-1.3b"), "verdict"] == "does not hold"
    assert len(pd.read_csv(tmp_path / "results/tables/tab04.csv")) >= 20
    errors = pd.read_csv(tmp_path / "results/tables/roofline_error.csv")
    assert errors["servers"].isna().sum() == 158, "every recorded online point is compared"
    assert (errors["servers"] == "none, GPU").sum() == 39, "and every unprofiled offline one"
    for name in ("tab01", "tab02", "tab03", "tab04"):
        for kind in ("csv", "md", "tex"):
            assert (tmp_path / f"results/tables/{name}.{kind}").stat().st_size > 0
    offline = pd.read_csv(tmp_path / "results/tables/phases.offline.csv")
    assert set(offline["status"]) == {"ok"} and offline["unclassified_fraction"].max() < 0.02
    counters = pd.read_csv(tmp_path / "results/tables/phases.counters.csv")
    product = counters[
        (counters["batch"] == 512) & (counters["model"] == "opt-1.3b") & (counters["kernel_class"] == "matmul")
    ]
    assert product["flop_tensor"].iloc[0] == pytest.approx(2 * 512 * 2048 * 6144, rel=1e-5), "FLOP of the first product"
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
