"""The advised configuration is started as a point of its own, and judged by what was predicted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.advisor.report import advice_for, write_advice
from memgap.advisor.verify import verification, verification_plan
from memgap.errors import UserError
from memgap.store.points import PointStore
from memgap.study.plan import plan_of
from memgap.study.study import Study
from memgap.tables.points import collect
from memgap.workflow import load_study
from tests.support.records import small_config
from tests.support.sessions import run_all


def study(**server: Any) -> Study:
    """Return a study whose advice can be taken."""
    config = small_config(server={"step-base-ms": 10.0, **server}, load={"requests": 24, "warmup_requests": 1})
    config["advisor"] = {"slo": {"ms": 50.0}, "verify": True}
    return load_study({**config, "figures": {"fig02": {"sweep": "small"}}})


def advice() -> dict[str, Any]:
    """Return an advice as it is stored."""
    return {
        "model": "tiny-opt",
        "b_opt": 4,
        "rule": {"latency": "itl_mean_ms", "slo_ms": 12.0},
        "expected": {"total_throughput_tok_s": 1000.0, "itl_mean_ms": 10.0, "kv_cache_usage_max_fraction": 0.1},
        "memory": {"kv_at_b_opt_bytes": 100.0},
        "server_flags": ["--max-num-seqs", "4"],
        "server_args": {"max-num-seqs": 4, "step-base-ms": 10.0},
    }


def point(**summary: float) -> dict[str, Any]:
    """Return a measured point of the advised server."""
    found = {"total_throughput_tok_s": 990.0, "itl_mean_ms": 10.2, "kv_cache_usage_max_fraction": 0.5, **summary}
    verdict = {"verdict": "valid"}
    return {"key": "k", "status": "ok", "summary": found, "engine": {"kv_pool_bytes": 210.0}, "verdict": verdict}


def test_the_plan_is_the_point_at_b_opt_on_the_advised_server() -> None:
    plan = plan_of(study(), "verification", "tiny-opt")
    session = verification_plan(plan, advice())
    assert session is not None
    (one,) = session["points"]
    assert one["record"]["server"]["args"] == {"max-num-seqs": 4, "step-base-ms": 10.0}
    assert one["record"]["batch_cap"] == 4
    assert one["key"] not in study().points
    assert verification_plan(plan, {**advice(), "b_opt": None}) is None
    with pytest.raises(UserError, match="names cap 64, which no point"):
        verification_plan(plan, {**advice(), "b_opt": 64})


def test_an_advice_that_does_what_it_says_holds() -> None:
    found = verification(advice(), point())
    assert found["holds"] is True
    assert found["predicted_and_measured"]["total_throughput_tok_s"]["ratio"] == pytest.approx(0.99)
    assert found["predicted_and_measured"]["kv_cache_used_max_bytes"]["ratio"] == pytest.approx(1.05)
    assert "The advice holds." in found["sentence"]


@pytest.mark.parametrize(
    ("summary", "missed"),
    [
        ({"total_throughput_tok_s": 900.0}, "throughput as predicted"),
        ({"itl_mean_ms": 13.0}, "keeps the slo"),
        ({"preemptions": 3.0}, "no preemption"),
    ],
    ids=["slower", "later", "preempted"],
)
def test_an_advice_that_fails_says_what_is_not_met(summary: dict[str, float], missed: str) -> None:
    found = verification(advice(), point(**summary))
    assert found["holds"] is False
    assert f"not met is {missed}" in found["sentence"]


def test_a_server_that_does_not_start_as_advised_is_a_result() -> None:
    failed = {"key": "k", "status": "oom", "error": {"message": "out of memory"}}
    assert "did not serve: oom" in verification(advice(), failed)["sentence"]
    nothing = verification({**advice(), "b_opt": None}, None)
    assert nothing["holds"] is None
    assert "Nothing was advised" in nothing["sentence"]
    assert "Not measured" in verification(advice(), None)["sentence"]


def test_from_sweep_to_verified_advice(tmp_path: Path) -> None:
    taken = study()
    run_all(taken, tmp_path)
    table = collect(taken.group_plan("small"), tmp_path / "points")
    advised = yaml.safe_load(write_advice(advice_for(table, "tiny-opt", taken.config["advisor"])))
    # the simulated engine sizes its pool by other flags than the advice names
    advised["server_args"] = {name: value for name, value in advised["server_args"].items() if "memory" not in name}
    plan = verification_plan(plan_of(taken, "verification", "tiny-opt"), advised)
    assert plan is not None

    import io

    from memgap.session.progress import Progress
    from memgap.session.run import Session
    from memgap.session.watch import StopWatch

    Session(plan, tmp_path, Progress("verify", io.StringIO()), StopWatch()).run()
    found = verification(advised, PointStore(tmp_path / "points").read(plan["points"][0]["key"]))
    checks = found["checks"]
    assert checks["no_preemption"], found
    assert found["holds"] is all(checks.values())
    assert found["predicted_and_measured"]["total_throughput_tok_s"]["measured"] > 0
    # how fast a busy machine is has no say: with the rates that were predicted the advice holds
    point = PointStore(tmp_path / "points").read(plan["points"][0]["key"])
    assert point is not None
    rates = {name: value for name, value in advised["expected"].items() if value is not None}
    verdict = {**point["verdict"], "verdict": "valid"}
    found = verification(advised, {**point, "summary": {**point["summary"], **rates}, "verdict": verdict})
    assert found["holds"] is True, found
