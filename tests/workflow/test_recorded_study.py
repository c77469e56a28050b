"""Anybody redraws the recorded study without a GPU, with the documented command."""

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from memgap.config.files import read_config_files
from memgap.workflow import load_study
from tests.support.explored import numbers_in
from tests.support.studies import REPOSITORY, SNAKEMAKE

pytestmark = pytest.mark.workflow

CONFIG = REPOSITORY / "config/recorded.yaml"


@dataclass(frozen=True)
class Redrawn:
    """Where the recorded study was redrawn, and what Snakemake printed."""

    folder: Path
    printed: str

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the study."""
        return pd.read_csv(self.folder / f"results/tables/{name}.csv")

    def document(self, name: str) -> dict[str, Any]:
        """Return a file of the advisor."""
        found: dict[str, Any] = yaml.safe_load((self.folder / f"results/advisor/{name}.yaml").read_text())
        return found


def snakemake(folder: Path, *arguments: str) -> str:
    """Run Snakemake on the recorded study in a folder; returns what it printed."""
    command = [SNAKEMAKE, *arguments, "--configfile", str(CONFIG), "--directory", str(folder)]
    command += ["--snakefile", str(REPOSITORY / "Snakefile")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Return the configuration of the recorded study."""
    return load_study(read_config_files([CONFIG])).config


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory: pytest.TempPathFactory) -> Redrawn:
    """Redraw the study once; nobody changes anything in it."""
    folder = tmp_path_factory.mktemp("recorded")
    return Redrawn(folder, snakemake(folder, "-j2", "figures", "tables"))


def not_empty(folder: Path, name: str, kinds: tuple[str, ...]) -> bool:
    """Whether there is a file of each kind with something in it."""
    return all((folder / f"{name}.{kind}").stat().st_size > 0 for kind in kinds)


def test_nothing_is_measured(redrawn: Redrawn, config: dict[str, Any]) -> None:
    assert "nothing was measured" in redrawn.printed
    for sweep in config["sweeps"]:
        assert set(redrawn.table(sweep)["source"].dropna()) == {"recorded"}


def test_every_figure_of_the_configuration_is_drawn(redrawn: Redrawn, config: dict[str, Any]) -> None:
    assert {f"fig{number:02d}" for number in range(1, 14)} <= config["figures"].keys(), "the paper's"
    for name in config["figures"]:
        assert not_empty(redrawn.folder / "figures", name, ("pdf", "png", "csv"))


def test_the_page_to_explore_has_the_advice(redrawn: Redrawn) -> None:
    page = (redrawn.folder / "results/explore.html").read_text()
    assert len(page) < 5_000_000
    for one in numbers_in(page)["models"]:
        advice = redrawn.document(one["model"])
        assert one["advice"]["advice"] == advice["advice"]
        at = one["caps"][str(advice["b_opt"])]
        assert at["command"] == advice["command"]
        assert at["memory"]["replicas"] == advice["memory"]["replicas"]
        assert one["advice"]["stability"] == advice["stability"]
        assert "itl_mean_ms" in one["twin"]


def test_every_table_of_the_paper_is_made(redrawn: Redrawn) -> None:
    for name in ("tab01", "tab02", "tab03", "tab04"):
        assert not_empty(redrawn.folder / "results/tables", name, ("csv", "md", "tex"))
        assert len(redrawn.table(name))


def test_no_recorded_point_is_missing_but_those_that_were_not_needed(redrawn: Redrawn, config: dict[str, Any]) -> None:
    for sweep in config["sweeps"]:
        table = redrawn.table(sweep)
        assert set(table["status"]) <= {"ok", "not_needed"}
        assert table.loc[table["status"] == "not_needed", "error_message"].notna().all()
    for study in config["offline"]:
        assert set(redrawn.table(f"{study}.offline")["status"]) == {"ok"}


def test_every_point_is_compared_with_the_roofline(redrawn: Redrawn, config: dict[str, Any]) -> None:
    errors, asked = redrawn.table("roofline_error"), config["tables"]["roofline_error"]
    online = pd.concat([redrawn.table(sweep) for sweep in asked["sweeps"]])
    offline = pd.concat([redrawn.table(f"{study}.offline") for study in asked["studies"]])
    unprofiled = offline[offline["profiler"].fillna("none") == "none"]
    assert set(errors.loc[errors["servers"].isna(), "key"]) == set(online.loc[online["status"] == "ok", "key"])
    for time in ("none, wall", "none, GPU"):
        assert set(errors.loc[errors["servers"] == time, "key"]) == set(unprofiled["key"])


def test_every_combination_is_predicted(redrawn: Redrawn, config: dict[str, Any]) -> None:
    for name, asked in config["predictions"].items():
        told = redrawn.table(f"{name}.predictions")
        wanted = itertools.product(asked["models"], asked["gpus"], asked["batch"])
        assert sorted(zip(told["model"], told["gpu"], told["batch"], strict=True)) == sorted(wanted)


def test_the_kernels_of_a_step_are_known_by_their_names(redrawn: Redrawn) -> None:
    assert redrawn.table("phases.offline")["unclassified_fraction"].max() < 0.02


def test_a_counted_matrix_product_has_the_operations_of_its_shape(redrawn: Redrawn) -> None:
    counters = redrawn.table("phases.counters")
    of_model = (counters["model"] == "opt-1.3b") & (counters["kernel_class"] == "matmul")
    hidden = 2048
    for batch, products in counters[of_model].groupby("batch"):
        if batch >= 8:  # a smaller one is padded to the tile of the tensor cores
            first = products["flop_tensor"].iloc[0]
            assert first == pytest.approx(2 * batch * hidden * 3 * hidden, rel=1e-5), "queries, keys and values at once"


def test_the_papers_claims_are_judged(redrawn: Redrawn) -> None:
    claims = redrawn.table("claims")
    told = claims.set_index(["claim", "model"])["verdict"]
    assert set(told) <= {"holds", "holds, differs in size", "does not hold", "not measured"}
    assert told["Batching multiplies throughput over batch 1", "opt-1.3b"] == "holds"
    assert told["DRAM read saturates in attention at MAX", "opt-1.3b"] == "does not hold"
    assert told["Replicas under MPS beat one server at MAX", "opt-1.3b"] == "does not hold"


def test_the_advice_is_the_best_cap_that_keeps_the_bound(redrawn: Redrawn, config: dict[str, Any]) -> None:
    for model in redrawn.table("online")["model"].unique():
        advice = redrawn.document(model)
        feasible = [one for one in advice["candidates"] if one["feasible"]]
        best = max(feasible, key=lambda one: one["throughput_tok_s"])
        assert advice["b_opt"] == best["batch_cap"]
        assert best["latency_ms"] <= advice["rule"]["slo_ms"]


def test_the_advice_is_verified_where_the_advised_server_was_recorded(redrawn: Redrawn) -> None:
    verified = [redrawn.document(f"{model}.verified") for model in redrawn.table("online")["model"].unique()]
    assert any(one["holds"] is not None for one in verified)
    for one in verified:
        assert one["holds"] is not None or "Not measured: the recorded data" in one["sentence"]


def test_a_second_run_does_nothing(redrawn: Redrawn) -> None:
    assert "Nothing to be done" in snakemake(redrawn.folder, "--dry-run", "figures", "tables")


def test_the_same_study_can_be_measured(tmp_path: Path) -> None:
    printed = snakemake(tmp_path, "--dry-run", "--config", "recorded=null")
    assert "synthetic_model" in printed, "models are made where servers are to be started"
