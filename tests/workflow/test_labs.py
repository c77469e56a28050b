"""Snakemake makes a lab of what its entry says; `labs` all of them, `lab05` one, and both need its run."""

import pytest

from tests.support.labs import lab_config
from tests.support.studies import Study

pytestmark = pytest.mark.workflow


def test_labs_are_targets(study: Study) -> None:
    config = lab_config(axis={"load.rate_of_capacity": [0.5, "inf"]})
    config["labs"]["stream"] = lab_config()["labs"]["01"]
    study.config = config
    one = study.run("-n", "lab01", "lab-stream")
    assert "Lab stream" in one and "Figure labs/01" in one and "Verdicts" not in one
    every = study.run("-n", "labs")
    for job in ("Lab 01", "Lab stream", "Tables of a lab: stream", "Figure labs/stream", "Verdicts of all labs"):
        assert job in every
    assert "Session" not in every


def test_what_is_wrong_with_a_lab_is_said_in_one_line(study: Study) -> None:
    study.config = lab_config(arms={"slow": {}, "fast": {"sever": {}}})
    assert "memgap: config: labs.01.arms.fast: unknown key 'sever'" in study.run("-n", "labs", expect=1)
