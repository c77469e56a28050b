"""The capacity of an SLO: simulated servers whose boundary is known, and a simulated engine that is measured."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from memgap.canonical import canonical_json
from memgap.cli import main
from memgap.roofline.predictions import setup_of
from memgap.twin.calibrate import PRIORS, Calibration
from memgap.twin.capacity import Belief, Expectation, Shape, Window, observed_design, search
from memgap.twin.simulate import Request, Server
from memgap.twin.stored import Observation
from memgap.workflow import load_study
from tests.support.records import small_config
from tests.support.sessions import run_all

SHAPE = Shape(
    rates=np.exp(np.linspace(math.log(50), math.log(160), 15)),
    missed=np.exp(np.linspace(math.log(1e-4), math.log(0.6), 15)),
    design=np.full(15, 5.0),
    boundary=100.0,
    unsure=0.1,
)


def expectation(theta: float) -> Expectation:
    like = Observation(
        key="made",
        model="opt-1.3b",
        workload="made",
        batch_cap=32,
        repeat=0,
        requests=tuple(Request(40, 20 + number % 30) for number in range(100)),
        server=Server(max_num_seqs=32, max_batched_tokens=2048, num_blocks=4000),
        concurrency=32,
        rate_req_s=None,
        setup=setup_of("opt-1.3b", "H100"),
        graph_tokens=512,
        max_model_len=2048,
        summary={},
    )
    size = len(PRIORS)
    covariance = tuple(tuple(row) for row in (0.01 * np.eye(size)).tolist())
    calibration = Calibration((theta,) * size, covariance, 0.03, (like,), {}, {}, ())
    return Expectation(calibration, like, {"ttft": 60.0, "tpot": 8.0}, 150)


@pytest.mark.parametrize("theta", [-0.1, 0.1])
def test_the_boundary_of_a_simulated_server_is_found(theta: float) -> None:
    """The twin takes every server for the same one; the windows are of servers that are faster or slower."""
    real, seeds = expectation(theta), iter(range(500, 900))
    found = search(lambda rate: real.window(rate, next(seeds)), expectation(0.0).shape(windows=6, draws=2))
    kept = [np.mean([real.window(rate, seed).good / 150 for seed in range(40)]) for rate in (found.low, found.high)]
    assert kept[0] >= 0.985 and kept[1] <= 0.995
    assert found.windows and found.seconds > 0
    assert found.found == (found.high <= found.low * 1.25)


def test_windows_move_the_belief_to_where_they_were_good_or_bad() -> None:
    middles = []
    for good in (300, 200):
        belief = Belief(SHAPE)
        before = belief.quantile(0.5)
        for _ in range(5):
            belief.see(Window(110.0, good, 300, 3.0))
        middles.append(belief.quantile(0.5) / before)
        assert belief.quantile(0.975) / belief.quantile(0.025) < math.exp(4 * 0.14)
    assert middles[0] > 1 > middles[1]


def test_requests_that_hang_together_count_less() -> None:
    apart = [Window(1.0, 297 if number % 2 else 296, 300, 1.0) for number in range(10)]
    together = [Window(1.0, 300 if number else 265, 300, 1.0) for number in range(10)]
    assert observed_design(apart) == 1.0
    assert observed_design(together) > 10


def test_a_server_is_searched_and_a_second_run_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(
        batch_cap=[1, 16],
        server={"step-base-ms": 4.0, "step-per-seq-ms": 0.5, "max-num-seqs": 16},
        load={"requests": 24, "warmup_requests": 1},
    )
    study = load_study(config)
    run_all(study, tmp_path)
    (session,) = study.sessions
    plan = tmp_path / "plan.json"
    plan.write_text(canonical_json(study.session_plan(session)))
    arguments = ["capacity", "--plan", str(plan), "--results", str(tmp_path), "--slo", "tpot=7", "--requests", "32"]
    assert main([*arguments, "--most-windows", "2"]) == 0
    (path,) = (tmp_path / "twin").glob("*.capacity.yaml")
    said = yaml.safe_load(path.read_text())
    assert 0 <= said["low_req_s"] < said["rate_req_s"] < said["high_req_s"]
    assert len(said["windows"]) == 2 and "keeps tpot <= 7 ms" in said["sentence"]
    stored = sorted(one.name for one in (tmp_path / "points").iterdir())
    assert main([*arguments, "--most-windows", "2"]) == 0
    assert sorted(one.name for one in (tmp_path / "points").iterdir()) == stored
    assert main([*arguments[:-3], "itl=3"]) == 2
    assert "LATENCY=MS" in capsys.readouterr().err
