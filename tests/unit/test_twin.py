"""The twin: simulated servers, calibration from simulated truth, intervals and what is asked of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.cli import main
from memgap.errors import UserError
from memgap.roofline.predictions import setup_of
from memgap.twin.calibrate import PRIORS, Calibration, calibrate, choose, elsewhere, run, transferred
from memgap.twin.costs import FEATURES, Coefficients, Roofline
from memgap.twin.outcome import step_times_ms, summary
from memgap.twin.predict import predict
from memgap.twin.question import Question, asked
from memgap.twin.report import errors, rows
from memgap.twin.simulate import Frontend, Request, Server, simulate
from memgap.twin.stored import Observation, observation

RECORDED = Path(__file__).parents[2] / "recorded/h200"
SERVER = Server(max_num_seqs=64, max_batched_tokens=512, num_blocks=2000, api_servers=2)
SETUP = setup_of("opt-1.3b", "H200")
COSTS = Coefficients((0.7, 1.6, 1.3, 1.8, 0.008, 1.5, 0.9, 2.0))


def requests(count: int = 80, seed: int = 0, rate: float | None = None) -> tuple[Request, ...]:
    stream = np.random.RandomState(seed)
    due = np.cumsum(stream.exponential(1 / rate, count)) if rate else [None] * count
    return tuple(
        Request(int(prompt), int(output), None if at is None else float(at))
        for prompt, output, at in zip(stream.randint(8, 300, count), stream.randint(2, 200, count), due, strict=True)
    )


def point(
    cap: int | None, seed: int = 0, theta: float = 0.3, rate: float | None = None, noise: float = 0.0
) -> Observation:
    """Return a point whose summary is a simulated server's."""
    made = Observation(
        key=f"{cap}-{seed}-{rate}",
        model="opt-1.3b",
        workload="made",
        batch_cap=cap or 64,
        repeat=0,
        requests=requests(max(40, 3 * (cap or 40)), seed, rate),
        server=SERVER,
        concurrency=cap,
        rate_req_s=rate,
        setup=SETUP,
        graph_tokens=512,
        max_model_len=2048,
        summary={},
    )
    at = np.full(len(PRIORS), theta)
    stream = np.random.RandomState(seed + 7)
    said = summary(run(made, at), 0.4)
    return replace(made, summary={name: value * float(np.exp(noise * stream.randn())) for name, value in said.items()})


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate([point(cap, seed=cap) for cap in (1, 4, 16, 64)])


def test_skipping_quiet_steps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes each step alone ends at the same times, in closed and open loops, with preemption."""
    roofline = Roofline(SETUP, 512, 2048)
    tight = replace(SERVER, num_blocks=120)
    for server in (SERVER, tight, replace(tight, asynchronous=False)):
        for load, cap in ((requests(), 12), (requests(rate=40.0), None)):
            fast = simulate(load, server, roofline, COSTS, Frontend(3, 1), cap)
            with monkeypatch.context() as patched:
                patched.setattr("memgap.scheduling.scheduler.Scheduler.quiet_steps", lambda _: 0)
                slow = simulate(load, server, roofline, COSTS, Frontend(3, 1), cap)
            assert fast.preemptions == slow.preemptions
            assert (fast.preemptions > 0) == (server is not SERVER)
            assert len(fast.steps.count) <= len(slow.steps.count)
            assert fast.last_ms == pytest.approx(slow.last_ms, rel=2e-3)
            assert fast.first_ms == pytest.approx(slow.first_ms, rel=2e-3)


def test_every_token_is_made_once() -> None:
    found = simulate(requests(), SERVER, Roofline(SETUP, 512, 2048), COSTS, Frontend(), 8)
    _, decodes = step_times_ms(found.steps)
    assert decodes.sum() + len(found.last_ms) == found.output_tokens.sum()
    assert (found.last_ms > found.first_ms - 1e-9).all() and (found.first_ms > found.sent_ms).all()


def test_a_request_waits_for_a_step_that_was_begun_and_one_more() -> None:
    """With asynchronous scheduling the next batch is chosen before a step ends; without it a request waits for one."""
    loads = [Request(8, 200), Request(8, 200, due_s=0.0505)]
    waits = []
    for ahead in (True, False):
        server = replace(SERVER, asynchronous=ahead)
        found = simulate(loads, server, Roofline(SETUP, 512, 2048), COSTS, Frontend())
        waits.append((found.first_ms - found.sent_ms)[1])
    step = 0.7 + 1.6 * 0.6
    assert waits[0] - waits[1] == pytest.approx(step, rel=0.5)


def test_shared_prefixes_are_computed_once() -> None:
    load = [Request(100, 4, group=0, prefix_tokens=96) for _ in range(6)]
    roofline = Roofline(SETUP, 512, 2048)
    kept = simulate(load, replace(SERVER, prefix_caching=True), roofline, COSTS, Frontend(), 1)
    anew = simulate(load, SERVER, roofline, COSTS, Frontend(), 1)
    assert kept.prefix_hits == 5 * 96 and anew.prefix_hits == 0
    assert kept.last_ms[-1] < anew.last_ms[-1]


def test_calibration_finds_what_made_the_points(calibration: Calibration) -> None:
    missed = [abs(off) for one in calibration.misses.values() for off in one.values()]
    assert np.median(missed) < 0.01
    held = [point(cap, seed=90 + cap) for cap in (8, 32)] + [point(None, seed=3, rate=30.0)]
    for row in rows(calibration, held):
        if row["quantity"] in ("output_throughput_tok_s", "itl_mean_ms", "e2e_mean_ms"):
            assert abs(row["error_fraction"]) < 0.02, row


def test_intervals_hold_what_noise_hides() -> None:
    """Points that each start moved by some per cent: most held-out values lie inside."""
    noisy = calibrate([point(cap, seed=cap, noise=0.02) for cap in (1, 4, 16, 64)])
    held = [point(cap, seed=50 + cap, noise=0.02) for cap in (2, 8, 12, 24, 32, 48)]
    found = errors(rows(noisy, held))
    assert np.mean([one["inside_fraction"] for one in found.values()]) >= 0.8


def test_what_lies_beyond_the_calibration_is_said(calibration: Calibration) -> None:
    assert predict(calibration, point(16)).extrapolates == ()
    far = predict(calibration, asked(Question(cap=16, prompt_tokens=(1500, 1500), output_tokens=(300, 300)), point(16)))
    assert any("attention a sequence" in one for one in far.extrapolates)
    near = predict(calibration, asked(Question(cap=16), point(16)))
    widths = [one.values["itl_mean_ms"].high / one.values["itl_mean_ms"].value for one in (far, near)]
    assert widths[0] > widths[1]


def test_another_machine_needs_two_points(calibration: Calibration) -> None:
    """The prior of one machine and two points of a slower one tell of its other caps."""
    slower = [point(cap, seed=cap, theta=0.5) for cap in (1, 64)]
    there = calibrate(slower, prior=elsewhere(calibration))
    held = point(16, seed=80, theta=0.5)
    said = predict(there, held).values["itl_mean_ms"].value
    untold = predict(transferred(calibration), held).values["itl_mean_ms"]
    assert said == pytest.approx(held.summary["itl_mean_ms"], rel=0.03)
    assert untold.high / untold.low > 1.1


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(), "cap"),
        (Question(cap=1, rate_req_s=1.0), "one of them"),
        (Question(cap=4, prompt_tokens=(9, 3)), "least first"),
        (Question(cap=4, kv_tokens=32), "does not fit"),
        (Question(cap=4, chunked=False, max_batched_tokens=16), "chunked"),
    ],
)
def test_questions_that_cannot_be_are_refused(question: Question, message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(question, point(16))


def test_a_smaller_pool_preempts_and_a_type_of_fewer_bytes_helps(calibration: Calibration) -> None:
    load: dict[str, Any] = {"cap": 48, "output_tokens": (150, 200)}
    runs = {
        name: predict(calibration, asked(Question(**load, **more), point(16)))
        for name, more in {"tight": {"kv_tokens": 6000}, "wide": {"kv_tokens": 60000}}.items()
    }
    assert runs["tight"].values["preemptions"].value > 0 == runs["wide"].values["preemptions"].value
    halved = asked(Question(cap=4, kv_dtype="fp8"), point(16))
    assert halved.server.num_blocks == 2 * SERVER.num_blocks


def test_choice_is_spread_over_the_caps_of_one_server() -> None:
    points = [point(cap) for cap in (1, 2, 4, 8, 16, 32, 64)] + [point(None, rate=10.0)]
    assert [one.batch_cap for one in choose(points)] == [1, 2, 8, 16, 64]
    assert [one.batch_cap for one in choose(points, 2)] == [1, 64]
    with pytest.raises(UserError, match="two batch caps"):
        choose([point(4), point(None, rate=10.0)])


def test_five_recorded_points_predict_the_others() -> None:
    """Llama-2-13B on an H200: caps that it was not calibrated from, workloads that it did not see."""
    lines = (RECORDED / "llama-2-13b-vllm-warm-5d2d1ce7.jsonl").read_text().splitlines()
    points = [observation(one) for one in map(json.loads, lines) if one["status"] == "ok"]
    found = calibrate(choose(points))
    keys = {one.key for one in found.points}
    said = errors(rows(found, [one for one in points if one.key not in keys]))
    assert said["output_throughput_tok_s"]["median_error"] < 0.03
    assert said["itl_mean_ms"]["median_error"] < 0.05
    assert said["ttft_mean_ms"]["median_error"] < 0.10
    assert said["itl_p99_ms"]["median_error"] < 0.20
    assert min(one["inside_fraction"] for one in said.values()) >= 0.7


def test_the_command_answers_from_recorded_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "twin.yaml", tmp_path / "twin.csv"
    arguments = ["twin", "--model", "llama-2-13b", "--recorded", str(RECORDED), "--cap", "48", "--rate", "4"]
    assert main([*arguments, "--out", str(out), "--table", str(table), "--format", "json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [one["load"] for one in answers] == ["cap 48", "4 req/s"]
    assert answers[0]["itl_mean_ms_low"] < answers[0]["itl_mean_ms"] < answers[0]["itl_mean_ms_high"]
    assert "held_out" in out.read_text() and "held out" in table.read_text()
    assert main(["twin", "--model", "opt-30b", "--recorded", str(RECORDED), "--cap", "1"]) == 2
    assert len(FEATURES) == len(COSTS.values)
