"""A tuning as rules of one DAG, on the simulated engine: the second tier follows the first one by itself."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.studies import Study
from tests.support.tunings import tuning_config

pytestmark = pytest.mark.workflow


def test_two_tiers_run_one_after_the_other_and_prices_measure_nothing(study: Study) -> None:
    study.config = tuning_config(
        fixed={"server": {"step-base-ms": 1.0}},
        tiers={
            "speed": {"experiments": {"step": {"server": {"step-base-ms": [40.0]}}}},
            "memory": {"experiments": {"blocks": {"server": {"block-size": 32}}}},
        },
        blocks={"least": 2, "most": 2},
        screen_fraction=0.3,
        servers="together",
    )
    planned = study.planned()
    assert planned["tuning_race"] == 2 and planned["table_tuning"] == 1 and planned["figure"] == 3
    study.run()
    folder = study.folder / "results/tuning/toy"
    races = folder / "tiny-opt/short"
    speed, memory = (json.loads((races / f"{tier}.json").read_text()) for tier in ("speed", "memory"))
    assert memory["arms"][0]["name"] == speed["winner"]["name"]
    assert memory["arms"][-1]["server_args"]["block-size"] == 32
    for name in ("speedup", "pareto", "factors"):
        for kind in ("pdf", "png", "csv"):
            assert (study.folder / f"figures/tuning/toy.{name}.{kind}").stat().st_size > 0
    before = study.measured_at()
    assert study.planned() == {}
    study.config["tuning"]["toy"]["usd_per_gpu_hour"] = {"CPU": 1.0}
    assert "tuning_race" not in study.planned()
    study.run()
    table = pd.read_csv(folder / "benchmarking_results.csv")
    assert table["usd_per_million_output_tokens"].notna().sum() == (table["blocks"] > 0).sum()
    assert study.measured_at() == before and study.processes() == []


def test_a_configuration_without_a_tuning_says_where_one_is(study: Study, tmp_path: Path) -> None:
    printed = study.run("--dry-run", "tuning", expect=1)
    assert "config: tuning is missing; describe one there, or take --configfile config/tuning.yaml." in printed
