"""The search for the version that a step came with, on simulated versions."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from memgap.errors import UserError
from memgap.points.point import Record
from memgap.session.watch import StopWatch
from memgap.versions.bisect import LOOKS, Measure, bisect, blamed_parts, most_comparisons
from memgap.versions.search import Search, said
from tests.support.labs import lab_plan
from tests.support.races import MadeServers

VERSIONS, SPREAD = 32, 0.008
"""The spread of a paired difference: 0.8 %, that of two runs of 10 s on a shared machine."""


def simulated(step: float, at: int, rng: np.random.Generator) -> Measure:
    """Return 32 versions of which those from `at` on are slower by a share."""
    truth = np.where(np.arange(VERSIONS) >= at, np.log1p(step), 0.0)
    noise = rng.normal(0.0, SPREAD, (VERSIONS, LOOKS[-1]))
    return lambda first, other, blocks: list(map(float, truth[other] - truth[first] + noise[other, :blocks]))


def test_a_planted_step_of_3_percent_is_named_in_six_comparisons() -> None:
    rng = np.random.default_rng(3)
    named, wrong = 0, 0
    for run in range(300):
        at = 1 + run % (VERSIONS - 1)
        found = bisect(VERSIONS, simulated(0.03, at, rng))
        assert len(found.comparisons) <= most_comparisons(VERSIONS) == 6
        named += found.version == at
        wrong += found.version not in (at, None)
    assert named / 300 >= 0.9
    assert wrong / 300 <= 0.05


def test_versions_that_are_alike_are_not_blamed() -> None:
    rng = np.random.default_rng(4)
    found = [bisect(VERSIONS, simulated(0.0, 1, rng)) for _ in range(300)]
    assert sum(one.by is not None for one in found) / 300 <= 0.05
    assert {len(one.comparisons) for one in found if one.by is None} == {1}


def test_a_version_that_got_faster_is_found_as_well() -> None:
    found = bisect(VERSIONS, simulated(-0.05, 20, np.random.default_rng(5)))
    assert (found.after, found.version) == (19, 20)
    assert found.ratio == pytest.approx(0.95, abs=0.01)


def test_where_noise_hides_it_a_range_is_said_and_nobody_blamed() -> None:
    def measure(first: int, other: int, blocks: int) -> Sequence[float]:
        size = 0.05 if other == 4 else 0.025
        return [size + (0.001 if block % 2 else -0.001) for block in range(blocks)]

    found = bisect(5, measure)
    assert found.version is None
    assert (found.after, found.by) == (0, 4)
    assert "half of the step" in found.why


def test_the_growth_of_a_step_is_split() -> None:
    before = [{"gpu_ms": 5.0, "schedule_ms": 1.0, "update_ms": 0.5, "prepare_ms": 1.0, "rest_ms": 0.1}]
    after = [{"gpu_ms": 5.1, "schedule_ms": 1.4, "update_ms": 0.5, "prepare_ms": 1.0, "rest_ms": 0.1}]
    found = blamed_parts(before, after)
    assert found == {"GPU": pytest.approx(0.1), "scheduler": pytest.approx(0.4), "host": pytest.approx(0.0)}


def versions_plan(slow_from: int) -> Record:
    """Return a lab of eight versions on made servers, 4 % slower from one on."""
    names = [f"v{number}" for number in range(8)]
    arms = {
        name: {"server": {"speed": (960.0 if number >= slow_from else 1000.0) + number / 100}}
        for number, name in enumerate(names)
    }
    plan = lab_plan(arms=arms)
    for cell in plan["cells"]:
        cell["record"]["server"]["args"].pop("step-base-ms", None)
    return plan


def test_a_labs_arms_are_measured_as_the_search_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgap.labs.run.Servers", MadeServers)
    search = Search(versions_plan(5), tmp_path, "tpot_mean_ms", StopWatch(), io.StringIO())
    found = search.run()
    assert found.version == 5
    assert said(found, search.versions, "tpot_mean_ms").startswith("tpot_mean_ms changed to 1.0")
    assert "with v5" in said(found, search.versions, "tpot_mean_ms")
    seen = {json.loads(path.read_text())["record"]["server"]["args"]["speed"] for path in tmp_path.rglob("point.json")}
    assert len(seen) < 8, "what the search does not need is not measured"


def test_a_version_without_a_number_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgap.labs.run.Servers", MadeServers)
    plan = versions_plan(5)
    for cell in plan["cells"]:
        if cell["arm"] == "v7":
            cell["record"]["server"]["args"]["fails"] = "bad_config"
    with pytest.raises(UserError, match="v7 has no number to compare"):
        Search(plan, tmp_path, "tpot_mean_ms", StopWatch(), io.StringIO()).run()
