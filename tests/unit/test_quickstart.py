"""The quickstart is short on slow machines too, and its advice is checked under the load that it was taken from."""

from pathlib import Path

import pytest

from memgap.advisor.verify import verification_plan
from memgap.config.files import read_config_files
from memgap.kinds.registry import kind_of
from memgap.session.time_left import TimeLeft
from memgap.study.plan import plan_of
from memgap.study.study import Study
from memgap.workflow import load_study

CONFIG = Path(__file__).parents[2] / "config/config.yaml"
SLOW_STEP_S = {1: 0.016, 32: 0.112}
"""A machine of two cores without AVX-512: 91 tok/s at cap 1 where another two cores had 781; cap 32 as much slower."""
SLOW_START_S = 65.0
"""Four times as long as two cores at rest needed without compiling."""


@pytest.fixture
def study() -> Study:
    config = read_config_files([CONFIG])
    config["engines"]["vllm"]["version"] = "0.0.0"  # "auto" would be what is installed on this machine
    return load_study(config)


def test_the_quickstart_and_its_verification_take_under_six_minutes_on_a_machine_four_times_slower(
    study: Study,
) -> None:
    work = [kind_of(point.record).work(point.record) for point in study.points.values()]
    assert [one.at_once for one in work] == [1, 2, 4, 8, 16, 32], "the bend is seen between these"
    left = TimeLeft([*work, work[-2]])  # the advised cap is 16 there as here
    for at_once, step_s in SLOW_STEP_S.items():
        left.probed(at_once, step_s)
    assert (left.remaining_s() or 0) + 2 * SLOW_START_S < 5.5 * 60


def test_its_verification_has_the_load_of_the_point_that_was_advised(study: Study) -> None:
    plan = plan_of(study, "verification", "tiny-opt")
    (advised,) = [point.record for point in study.points.values() if point.record["batch_cap"] == 16]
    session = verification_plan(plan, {"model": "tiny-opt", "b_opt": 16, "server_args": {"max-num-seqs": 16}})
    assert session is not None
    (one,) = session["points"]
    assert one["record"]["load"] == advised["load"]
    assert one["record"]["load"]["seconds"] == 10.0
    assert one["record"]["dataset"] == advised["dataset"]
