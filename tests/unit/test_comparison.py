"""The tables and figures of a comparison: both engines on the same requests, failures in the small print."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from memgap.datasets.build import build_dataset
from memgap.errors import UserError
from memgap.figures.memory_over_time import common_points
from memgap.kinds.static.engines import engines_table
from memgap.kinds.static.kv import kv_table, used_tokens_at
from memgap.kinds.static.memory import memory_table
from memgap.kinds.static.point import is_static
from memgap.kinds.static.result import NO_CLIENT, STEP_COLUMNS, load_result, step_rows, worked
from memgap.kinds.static.tables import READ
from memgap.load.latency import summarize
from memgap.load.records import LoadResult, RequestResult, TokenEvents
from memgap.recorded.export import export
from memgap.recorded.load import restore
from memgap.session.phases import result_files
from memgap.stats.layouts import paged, static
from memgap.store.points import PointStore, csv_gz
from memgap.study.study import Study
from memgap.tables.inputs import Inputs
from memgap.workflow import load_study
from tests.support.drawing import draw, reading
from tests.support.records import small_config, store_point

BLOCK, POOL, TOKEN_BYTES = 4, 400, 8192


def study() -> Study:
    """Return a comparison of the simulated server and static batches at two batches, with requests of many lengths."""
    config = small_config()
    config["datasets"]["short"] |= {"prompt_tokens": {"min": 4, "max": 20}, "output_tokens": {"min": 2, "max": 12}}
    config["engines"]["hf"] = {"adapter": "hf", "version": "5.0.0"}
    fixed = {"model": "tiny-opt", "dataset": "short", "batch_cap": [2, 4], "load": {"requests": 7}}
    config["sweeps"] = {
        "both": {
            "fixed": fixed,
            "experiments": {
                "continuous": {"engine": "mock"},
                "static": {"engine": "hf", "server": {"max-model-len": 64, "kv-cache": ["dynamic", "batch"]}},
            },
        }
    }
    return load_study(config)


def static_outcome(record: dict[str, Any], prompts: list[Any]) -> dict[str, Any]:
    """Return what a worker would say: a step a second, with the cache as transformers lay it out."""
    size, now_s, batches = record["batch_cap"], 50.0, []
    for first in range(0, len(prompts), size):
        batch = prompts[first : first + size]
        padded, steps = max(len(one.token_ids) for one in batch), max(one.output_tokens for one in batch)
        whole = padded + steps - 1 if record["server"]["args"]["kv-cache"] == "batch" else 0
        rows = []
        for step in range(steps):
            slots = whole or padded + step
            time_s = now_s + step + 1
            rows.append({"time_s": time_s, "kv_slots": slots, "kv_bytes": slots * len(batch) * TOKEN_BYTES})
        ended_s = now_s + steps
        batches.append(
            {
                "start_monotonic_s": now_s,
                "end_monotonic_s": ended_s,
                "padded_prompt_tokens": padded,
                "generated_tokens": steps,
                "steps": rows,
            }
        )
        now_s = ended_s
    return {"start_unix_s": 1e9, "start_monotonic_s": 50.0, "end_monotonic_s": now_s, "batches": batches}


def served(prompts: list[Any]) -> tuple[LoadResult, list[dict[str, float]]]:
    """Return requests that run one after another, a token a second, and samples of a pool of blocks."""
    results, moments, rows, now_s = [], [], [], 0.0
    for index, one in enumerate(prompts):
        times_s = [now_s + 1 + step for step in range(one.output_tokens)]
        asked = {"prompt_tokens_asked": len(one.token_ids), "output_tokens_asked": one.output_tokens}
        seen = {"output_tokens_seen": one.output_tokens, "status": "ok"}
        moved = {"sent_s": now_s, "first_token_s": times_s[0], "last_token_s": times_s[-1], "end_s": times_s[-1]}
        results.append(RequestResult(index, 0, **asked, **seen, **moved))  # type: ignore[arg-type]
        moments += [(index, moment) for moment in times_s]
        for step, time_s in enumerate(times_s[:-1]):
            held = -(-(len(one.token_ids) + step) // BLOCK) * BLOCK
            rows.append({"time_s": time_s + 0.5, "kv_cache_usage_fraction": held / POOL, "rss_bytes": 9e8})
        now_s = times_s[-1]
    events = TokenEvents(
        np.array([index for index, _ in moments], dtype=np.int32),
        np.array([moment for _, moment in moments], dtype=np.float64),
        np.ones(len(moments), dtype=np.int32),
    )
    return LoadResult(results, events, [], 1e9, 50.0, now_s, "token_ids", NO_CLIENT), rows


class ComparisonTables(NamedTuple):
    """The tables of a comparison."""

    engines: pd.DataFrame
    kv: pd.DataFrame
    memory: pd.DataFrame

    def inputs(self) -> Inputs:
        """Return them as figures take them."""
        return Inputs({f"comparison.{kind}": table for kind, table in self._asdict().items()})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[Any]]:
    """Return the plan, the folder of its points and its prompts; the last static point ran out of memory."""
    folder, compared = tmp_path_factory.mktemp("comparison") / "points", study()
    plan = compared.group_plan("both")
    prompts = build_dataset(next(iter(compared.datasets.values())))[:7]
    start = csv_gz([{"time_s": 0.5 * tick, "rss_bytes": 1e8 * tick} for tick in range(70)], ["time_s", "rss_bytes"])
    for entry in plan["points"]:
        record = entry["record"]
        if is_static(record):
            outcome = static_outcome(record, prompts)
            result, rows = load_result(outcome, prompts, record["batch_cap"]), []
            summary = {**summarize(result), **worked(outcome, prompts, record["batch_cap"])}
            rows = [{"time_s": 0.25 + tick, "rss_bytes": 5e8} for tick in range(int(result.duration_s))]
            files = {"steps.csv.gz": csv_gz(step_rows(outcome), list(STEP_COLUMNS))}
            if entry is plan["points"][-1]:
                store_point(folder, record, {}, status="oom")
                continue
        else:
            result, rows = served(prompts)
            summary, files = summarize(result), {}
        key = store_point(folder, record, summary)
        point = PointStore(folder).read(key)
        assert point is not None
        pool = None if is_static(record) else POOL
        point["engine"] |= {"kv_pool_tokens": pool, "kv_pool_bytes": pool and pool * TOKEN_BYTES}
        point["engine"] |= {"kv_block_tokens": None if is_static(record) else BLOCK, "max_model_len": 64}
        point["window"] = {"duration_s": result.duration_s, "start_unix_s": 0.0, "end_unix_s": result.duration_s}
        columns = ["time_s", "kv_cache_usage_fraction", "rss_bytes", "gpu_mem_used_bytes"]
        files |= {**result_files(result), "telemetry.csv.gz": csv_gz(rows, columns), "startup.csv.gz": start}
        PointStore(folder).write(key, point, files)
    return plan, folder, prompts


@pytest.fixture(scope="module")
def tables(made: tuple[dict[str, Any], Path, list[Any]]) -> ComparisonTables:
    """Return the tables of the comparison."""
    plan, folder, _ = made
    return ComparisonTables(engines_table(plan, folder), kv_table(plan, folder), memory_table(plan, folder))


def test_one_row_a_point_with_its_fate(tables: ComparisonTables) -> None:
    engines = tables.engines
    assert list(engines["status"]) == ["ok"] * 5 + ["oom"]
    assert list(engines["batching"]) == ["continuous"] * 2 + ["static"] * 4
    assert engines["error_message"].iloc[-1] == "it was oom"
    measured = engines[engines["status"] == "ok"]
    assert measured["output_tokens"].nunique() == 1
    assert (measured["computed_output_tokens"] >= measured["output_tokens"]).all()
    assert (measured.loc[measured["batching"] == "continuous", "useful_fraction"] == 1).all()


def test_what_static_batches_held_is_what_their_lengths_say(
    made: tuple[dict[str, Any], Path, list[Any]], tables: ComparisonTables
) -> None:
    own = tables.kv[tables.kv["is_own"] & tables.kv["layout"].str.startswith("static")]
    assert len(own) == 3
    assert (own["measured_held_token_steps"] == own["held_token_steps"]).all()
    assert own["measured_wasted_fraction"].to_numpy() == pytest.approx(own["wasted_fraction"].to_numpy())
    lengths = [(len(one.token_ids), one.output_tokens) for one in made[2]]
    assert {int(one) for one in tables.kv["used_token_steps"]} == {
        sum(prompt + step for prompt, output in lengths for step in range(output))
    }


def test_what_a_paged_pool_held_is_about_what_blocks_hold(tables: ComparisonTables) -> None:
    own = tables.kv[tables.kv["is_own"] & (tables.kv["layout"] == "paged")]
    assert set(own["block_tokens"]) == {BLOCK}
    # the samples leave out each request's last step, which the client does not see any more
    assert own["measured_wasted_fraction"].to_numpy() == pytest.approx(own["wasted_fraction"].to_numpy(), abs=0.03)
    assert (own["wasted_fraction"] < 0.25).all()
    other = tables.kv[(tables.kv["layout"] == "contiguous-max-length")]
    assert (other["wasted_fraction"] > 0.5).all()
    assert set(tables.kv["block_tokens"]) == {BLOCK}, "static points are compared with the blocks of the paged engine"


def test_tokens_in_use_at_a_moment() -> None:
    requests = pd.DataFrame(
        {
            "index": [0, 1],
            "prompt_tokens_asked": [10, 20],
            "first_token_s": [1.0, np.nan],
            "last_token_s": [3.0, np.nan],
        }
    )
    events = pd.DataFrame({"request": [0, 0, 0], "time_s": [1.0, 2.0, 3.0]})
    assert used_tokens_at(np.array([0.5, 1.0, 2.5, 3.0]), requests, events).tolist() == [0, 10, 11, 0]


def test_memory_over_time_has_the_load_and_the_split(tables: ComparisonTables) -> None:
    memory = tables.memory
    assert set(memory["phase"]) == {"load", "inference"}
    for _, own in memory.groupby("key"):
        load, served_rows = own[own["phase"] == "load"], own[own["phase"] == "inference"]
        assert load["time_s"].max() <= 30.0 <= served_rows["time_s"].min()
        assert load["weights_bytes"].isna().all()
        assert (served_rows["weights_bytes"] == 500).all()
        known = served_rows.dropna(subset=["kv_held_bytes"])
        assert len(known)
        assert (known["kv_used_bytes"] <= known["kv_held_bytes"]).all()
    continuous = memory[memory["engine"] == "memgap-mock"]
    held = continuous.loc[continuous["phase"] == "inference", "kv_held_bytes"]
    assert set(held) == {POOL * TOKEN_BYTES}


def test_a_damaged_file_is_one_sentence(made: tuple[dict[str, Any], Path, list[Any]], tmp_path: Path) -> None:
    import shutil

    plan, folder, _ = made
    copy = tmp_path / "points"
    shutil.copytree(folder, copy)
    key = next(entry["key"] for entry in plan["points"] if is_static(entry["record"]))
    (copy / key / "steps.csv.gz").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"steps\.csv\.gz is damaged"):
        kv_table(plan, copy)


@pytest.mark.parametrize("name", reading("comparison.engines"))
def test_a_figure_draws_the_tables_that_were_written(name: str, tables: ComparisonTables, tmp_path: Path) -> None:
    for kind, table in tables._asdict().items():
        table.to_csv(tmp_path / f"{kind}.csv", index=False)
    figure, data = draw(name, Inputs({f"comparison.{kind}": tmp_path / f"{kind}.csv" for kind in tables._fields}))
    figure.savefig(tmp_path / "figure.png")
    assert len(data)
    assert "oom" in words(figure)
    assert "SIMULATED, not measured; memgap-mock" in words(figure)


@pytest.mark.parametrize("name", reading("comparison.engines"))
def test_a_figure_without_points_says_so(name: str, tables: ComparisonTables) -> None:
    nothing = ComparisonTables(
        engines=tables.engines.assign(status="crash"), kv=tables.kv.iloc[:0], memory=tables.memory.iloc[:0]
    )
    figure, data = draw(name, nothing.inputs())
    assert data.empty
    assert "no point of this comparison was measured" in words(figure)
    assert "crash" in words(figure)


def test_the_largest_batch_that_all_engines_have_is_drawn(tables: ComparisonTables) -> None:
    engines = tables.engines.assign(series=tables.engines["experiment"] + tables.engines["kv_cache"])
    assert set(common_points(engines[engines["status"] == "ok"])["batch_cap"]) == {2}
    alone = engines[(engines["status"] == "ok") & ~((engines["kv_cache"] == "batch") & (engines["batch_cap"] == 2))]
    assert set(common_points(alone)["batch_cap"]) == {4}


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="the column sweep is missing"):
        READ["kv"].read(tmp_path / "x.csv")
    with pytest.raises(UserError, match="not a table of a comparison"):
        READ["kv"].read(tmp_path / "absent.csv")


def words(figure: Figure) -> str:
    """Return all text of a figure."""
    texts = [one.get_text() for axes in figure.axes for one in axes.texts]
    supxlabel = getattr(figure, "_supxlabel", None)
    return " ".join([*texts, supxlabel.get_text() if supxlabel is not None else ""])


def test_both_layouts_agree_with_the_table(
    made: tuple[dict[str, Any], Path, list[Any]], tables: ComparisonTables
) -> None:
    from memgap.stats.layouts import Lengths

    lengths = [Lengths(len(one.token_ids), one.output_tokens) for one in made[2]]
    kv = tables.kv.set_index(["layout", "batch_cap"])["held_token_steps"]
    assert set(kv.loc["paged"]) == {paged(lengths, BLOCK).held}
    assert set(kv.loc[("static-dynamic", 4)]) == {static(lengths, 4).held}
    assert dataclasses.asdict(static(lengths, 4))["padding"] > 0


def test_a_recorded_comparison_is_drawn_again(
    made: tuple[dict[str, Any], Path, list[Any]], tables: ComparisonTables, tmp_path: Path
) -> None:
    plan, folder, _ = made
    export(folder.parent, tmp_path / "study", requests=True)
    store = PointStore(tmp_path / "points")
    keys = [entry["key"] for entry in plan["points"]]
    for path in (tmp_path / "study").glob("*.jsonl"):
        restore(tmp_path / "study", path.name.removesuffix(".jsonl"), keys, store)
    again = [make(plan, tmp_path / "points") for make in (engines_table, kv_table, memory_table)]
    static = tables.kv["layout"].str.startswith("static")
    pd.testing.assert_frame_equal(again[1][static], tables.kv[static])
    held = ["key", "time_s", "kv_held_bytes", "kv_used_bytes"]
    before, after = (
        one.loc[(one["engine"] == "transformers") & (one["phase"] == "inference"), held].reset_index(drop=True)
        for one in (tables.memory, again[2])
    )
    pd.testing.assert_frame_equal(after, before)
    figure, _ = draw("memory_over_time", ComparisonTables(*again).inputs())
    assert "recorded data" in words(figure)
