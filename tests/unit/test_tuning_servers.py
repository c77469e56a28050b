"""A tuning on the simulated engine: real servers are started, used and stopped."""

import io
from pathlib import Path

import psutil
import pytest

from memgap.errors import UserError
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.tuning.run import run_tuning
from tests.support.tunings import tuning_plan

TIERS = {"speed": {"experiments": {"step": {"server": {"step-base-ms": [2.0]}}}}}


def test_servers_start_anew_in_every_block_or_once(tmp_path: Path) -> None:
    for servers, starts in (("in_turn", 4), ("together", 2)):
        said = io.StringIO()
        plan = tuning_plan(tiers=TIERS, servers=servers, blocks={"least": 2, "most": 2})
        (outcome,) = run_tuning(plan, tmp_path / servers, StopWatch(), said)
        begun = [line for line in said.getvalue().splitlines() if "starting the server" in line]
        again = [line for line in begun if line.endswith(", again")]  # what a busy machine made invalid
        assert len(begun) - len(again) == starts, said.getvalue()
        assert outcome["blocks"] == 2 and len(outcome["arms"]) == 2
        store = PointStore(tmp_path / servers / "points")
        points = [store.read(key) for arm in outcome["arms"] for key in arm["points"]]
        assert [point and point["status"] for point in points] == ["ok"] * 4
    assert not [one for one in psutil.Process().children(recursive=True) if "mock_server" in " ".join(one.cmdline())]


def test_an_unknown_flag_and_a_failing_server(tmp_path: Path) -> None:
    tiers = {"speed": {"experiments": {"bad": {"server": {"fault": "oom-start"}}, "odd": {"server": {"no-such": 1}}}}}
    quick = {"blocks": {"least": 2, "most": 2}}
    with pytest.raises(UserError, match="memgap-mock has no flag 'no-such'"):
        run_tuning(tuning_plan(tiers=tiers, **quick), tmp_path, StopWatch(), io.StringIO())
    assert not list(tmp_path.glob("points/*/point.json")), "nothing was started"
    del tiers["speed"]["experiments"]["odd"]
    (outcome,) = run_tuning(tuning_plan(tiers=tiers, **quick), tmp_path, StopWatch(), io.StringIO())
    states = {arm["label"]: (arm["state"], arm["reason"].partition(":")[0]) for arm in outcome["arms"]}
    assert states["fault oom-start"] == ("failed", "oom")
