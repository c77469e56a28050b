"""The target `loadtest`: from a configuration to tables and figure, with the real Locust on the simulated engine."""

import pytest

from tests.support.loadtests import loadtest_config, needs_locust
from tests.support.studies import Study

pytestmark = pytest.mark.workflow


@needs_locust
def test_the_target_makes_tables_and_a_figure_and_a_second_run_does_nothing(study: Study) -> None:
    study.config = loadtest_config()
    study.run("loadtest")  # which is all of this configuration
    made = {str(path.relative_to(study.folder)) for path in study.folder.rglob("asking.*") if path.is_file()}
    for kind in ("loadtest.csv", "timeline.csv", "comparison.csv", "comparison.html", "definitions.csv"):
        assert f"results/tables/asking.{kind}" in made
    for kind in ("pdf", "png", "csv"):
        assert f"figures/asking.loadtest.{kind}" in made
    assert study.planned() == {}
    study.config["loadtests"]["asking"]["fixed"]["repeats"] = 2
    planned = study.planned()
    assert planned["session"] == 1 and "locust_environment" not in planned


def test_the_target_without_a_load_test_says_where_one_is(study: Study) -> None:
    assert "or take --configfile config/loadtest.yaml" in study.run("--dry-run", "loadtest", expect=1)
