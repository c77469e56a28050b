"""Stop rules spare what the answer does not depend on, and nothing else."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from memgap.advisor.bca import advise
from memgap.advisor.search import SEARCHES, Summaries, next_cap, profile_of
from memgap.errors import UserError
from memgap.session.stop import Seen, choose
from memgap.store.points import PointStore
from memgap.tables.points import collect
from memgap.workflow import load_study
from tests.support.paper import profiles
from tests.support.records import small_config
from tests.support.sessions import run_all

CAPS = [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768]
ADVISOR = {"latency": "itl_mean_ms", "slo": {"multiple": 2.0, "times_latency_at": 32}, "epsilon": 0.1}


def saturating(rng: random.Random) -> dict[int, Summaries]:
    """Return a made-up grid: throughput that flattens, latency that grows, sometimes too large to fit."""
    step_ms, wall, fits = rng.uniform(1, 20), rng.uniform(20, 600), rng.choice([80, 200, 1000])
    grid = {}
    for cap in CAPS:
        latency = step_ms * (1 + cap / wall)
        found = {"total_throughput_tok_s": 1500 * cap / latency, "itl_mean_ms": latency}
        grid[cap] = [found] if cap <= fits else []
    return grid


def searched(grid: dict[int, Summaries], advisor: dict[str, Any]) -> tuple[int | None, int]:
    """Return B_opt by the search and how many caps it measured."""
    known: dict[int, Summaries] = {}
    while (cap := next_cap(CAPS, known, advisor)) is not None:
        assert cap not in known, "a cap is measured once"
        known[cap] = grid[cap]
    return decide(known, advisor), len(known)


def decide(known: dict[int, Summaries], advisor: dict[str, Any]) -> int | None:
    """Return B_opt of the known caps."""
    profile = [profile_of(cap, summaries, advisor["latency"]) for cap, summaries in known.items()]
    return advise(profile, advisor["slo"], advisor["epsilon"]).b_opt


@pytest.mark.parametrize("slo", [{"multiple": 2.0, "times_latency_at": 32}, {"ms": 25.0}], ids=["multiple", "ms"])
def test_the_search_finds_what_the_full_grid_says(slo: dict[str, float]) -> None:
    rng, measured = random.Random(0), 0
    for _ in range(200):
        grid, advisor = saturating(rng), {**ADVISOR, "slo": slo, "epsilon": rng.choice([0.05, 0.1, 0.3])}
        b_opt, count = searched(grid, advisor)
        assert b_opt == decide(grid, advisor)
        measured += count
    assert measured / 200 < len(CAPS) / 2


@pytest.mark.parametrize("model", sorted(profiles()))
def test_the_published_sweeps_need_half_of_their_points(model: str) -> None:
    grid: dict[int, Summaries] = {
        one.batch_cap: []
        if one.excluded
        else [{"total_throughput_tok_s": one.throughput_tok_s or 0.0, "itl_mean_ms": one.latency_ms or 0.0}]
        for one in profiles()[model]
    }
    known: dict[int, Summaries] = {}
    while (cap := next_cap(sorted(grid), known, ADVISOR)) is not None:
        known[cap] = grid[cap]
    assert decide(known, ADVISOR) == decide(grid, ADVISOR)
    assert len(known) <= 0.6 * len(grid)


def seen(throughput: float = 100.0, status: str = "ok", preempted: bool = False) -> Seen:
    """Return what a made-up point showed."""
    return Seen(status, status == "ok" and not preempted, preempted, {"total_throughput_tok_s": throughput})


def points(caps: list[int], repeats: int = 1) -> list[dict[str, Any]]:
    """Return points of a plan; the key tells cap and repeat."""
    return [
        {"key": f"{cap}.{repeat}", "record": {"batch_cap": cap, "repeat": repeat, "load": {"requests": cap}}}
        for cap in caps
        for repeat in range(repeats)
    ]


def rule(members: list[dict[str, Any]], **stop: Any) -> dict[str, Any]:
    """Return a rule of a plan."""
    return {"points": [one["key"] for one in members], "stop": stop, "advisor": ADVISOR}


def test_repeats_end_when_the_interval_is_narrow() -> None:
    members = points([8], repeats=6)
    stop = rule(members, repeats={"interval_fraction": 0.02, "least": 3})
    close = {"8.0": seen(100), "8.1": seen(100.4), "8.2": seen(99.8)}
    assert choose(members, [stop], close, SEARCHES).wanted == []
    assert "3 repeats" in choose(members, [stop], close, SEARCHES).spared["8.5"]
    wide = {"8.0": seen(100), "8.1": seen(110), "8.2": seen(95)}
    assert choose(members, [stop], wide, SEARCHES).wanted == ["8.3", "8.4", "8.5"]
    assert choose(members, [stop], {"8.0": seen(), "8.1": seen()}, SEARCHES).wanted, "two are fewer than the least"


def test_caps_above_a_preempted_one_are_spared() -> None:
    members = points([8, 16, 32, 64])
    stop = rule(members, after_preemption=True)
    assert choose(members, [stop], {"8.0": seen(), "16.0": seen(preempted=True)}, SEARCHES).wanted == []
    assert choose(members, [stop], {"8.0": seen(), "16.0": seen(status="crash")}, SEARCHES).wanted == ["32.0", "64.0"]
    assert choose(members, [stop], {"16.0": seen(status="oom")}, SEARCHES).wanted == ["8.0"]


def test_a_point_that_another_sweep_wants_is_measured() -> None:
    members = points([8, 16, 32])
    stop, free = rule(members, after_preemption=True), rule(members[2:])
    choice = choose(members, [stop, free], {"8.0": seen(preempted=True)}, SEARCHES)
    assert choice.wanted == ["32.0"]
    assert set(choice.spared) == {"16.0"}


@pytest.mark.parametrize("search", ["b_opt", "twin"])
def test_a_searched_sweep_ends_in_a_table_that_says_what_was_spared(tmp_path: Path, search: str) -> None:
    server = {"step-base-ms": 4.0, "step-per-seq-ms": 1.0}
    config = small_config(
        batch_cap=[1, 2, 4, 8, 16, 32], server=server, load={"requests_per_slot": 2, "min_requests": 4}
    )
    config["datasets"]["short"]["requests"] = 64
    config["sweeps"]["small"]["stop"] = {"search": search}
    config["advisor"] = {"slo": {"ms": 13.0}}
    study = load_study(config)
    said = run_all(study, tmp_path)
    (session,) = study.sessions
    outcome = json.loads((tmp_path / f"sessions/{session}.json").read_text())
    spared = [one for one in outcome["points"] if one["status"] == "not_needed"]
    assert spared
    assert f"{len(spared)} points were not needed" in said
    table = collect(study.group_plan("small"), tmp_path / "points")
    stored = list(PointStore(tmp_path / "points").stored_keys())
    assert (table["status"] == "not_needed").sum() == len(spared) == 6 - len(stored)
    assert table[table["status"] == "not_needed"]["error_message"].str.contains("answer").all()
    assert set(table[table["status"] == "ok"]["batch_cap"]) >= {1, 8}
    assert "starting" not in run_all(study, tmp_path), "nothing is left to do"


def test_rules_across_caps_need_one_server() -> None:
    config = small_config(cap_side="server", load={"requests": 6, "arrival": "all-at-once"})
    config["sweeps"]["small"]["stop"] = {"after_preemption": True}
    with pytest.raises(UserError, match="cap_side: client"):
        load_study(config)
