"""From the `offline` section to points: what makes a key, which session measures it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from memgap.commands.listing import list_points
from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.kinds.offline.point import mode_of
from memgap.kinds.offline.profilers import profiler_of
from memgap.kinds.registry import session_of
from memgap.points.point import Point
from memgap.study.study import Study, expand_study
from memgap.workflow import load_study
from tests.support.offline_studies import SYNCHRONOUS, config
from tests.support.records import small_config, small_study

SYNCHRONOUS_LONG = {"max-model-len": 128, "async-scheduling": False}


def expanded(experiments: dict[str, Any] | None = None, **changes: Any) -> dict[str, Point]:
    """Return the points of the offline study by key, in order."""
    return points_of(load_study(config(experiments, **changes)))


def points_of(study: Study, name: str = "phases") -> dict[str, Point]:
    """Return the points of an offline study by key, in order."""
    return {key: study.points[key] for _, key in study.offline[name]}


def refusal(experiments: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return the one sentence that a study is refused with."""
    return refusal_of(config(experiments, **changes))


def refusal_of(configuration: dict[str, Any]) -> str:
    """Return the one sentence that a configuration is refused with."""
    with pytest.raises(UserError) as caught:
        load_study(configuration)
    said = str(caught.value)
    assert said.startswith("config: ")
    assert said.endswith(".") and "\n" not in said
    return said


def test_every_list_is_an_axis() -> None:
    points = expanded(batch=[1, 4], output_tokens=[8, 16], repeats=2)
    records = [point.record for point in points.values()]
    assert [(one["batch"], one["output_tokens"], one["repeat"]) for one in records] == [
        (batch, output, repeat) for batch in (1, 4) for output in (8, 16) for repeat in (0, 1)
    ]
    assert len(points) == 8
    assert len({point.session for point in points.values()}) == 1, "one engine measures all of them"


def test_a_study_needs_its_models_and_no_dataset() -> None:
    alone = load_study(config())
    assert [model["name"] for model in alone.model_folders.values()] == ["tiny-opt"]
    assert [dataset["name"] for dataset in alone.datasets.values()] == ["short"], "the sweep's"
    assert alone.sessions_of("phases") == [next(iter(expanded().values())).session]


def test_a_key_depends_on_what_is_measured_and_on_nothing_else() -> None:
    keys = list(expanded())
    assert keys == list(expanded())
    assert keys == list(expanded(detokenize=True, seed=0, warmup_steps=2, temperature=0, outputs="final"))
    assert keys == list(expanded(server={"enforce-eager": None}))
    renamed = config()
    renamed["offline"]["other"] = renamed["offline"].pop("phases")
    assert keys == list(points_of(load_study(renamed), "other"))
    others = ({"detokenize": False}, {"seed": 1}, {"outputs": "delta"}, {"env": {"A": "b"}}, {"warmup_steps": 1})
    for other in (*others, {"server": {"enforce-eager": True}}):
        assert not set(keys) & set(expanded(**other))


def test_a_default_is_no_part_of_a_records_outputs() -> None:
    assert all("outputs" not in one.record and "window" not in one.record for one in expanded().values())


def test_points_that_two_studies_share_are_one() -> None:
    both = config()
    both["offline"]["again"] = both["offline"]["phases"]
    study = load_study(both)
    assert len(points_of(study)) == 2
    assert study.offline["again"] == study.offline["phases"]


def test_arguments_of_a_profiler_reach_its_command_and_make_another_point(tmp_path: Path) -> None:
    plain, given = (
        next(iter(expanded(output_tokens=100, server=SYNCHRONOUS_LONG, profiler=profiler).values()))
        for profiler in ({"source": "nsys"}, {"source": "nsys", "args": ["--gpu-metrics-frequency=20000"]})
    )
    assert "args" not in plain.record["server"]["profiler"]
    assert plain.key != given.key
    for source, place in (("nsys", "--output"), ("ncu", "--csv")):
        settings = {"source": source, "args": ["--one=1", "-t"], "metrics": ["stalls"], "kernels": None}
        command = profiler_of(settings, []).command(["python", "worker"], tmp_path)
        assert command[-4:] == ["--one=1", "-t", "python", "worker"]
        assert place in command[:-4]


def test_sessions_differ_by_profiler_and_say_which() -> None:
    experiments: dict[str, Any] = {
        "plain": {},
        **{name: {"profiler": {"source": name}} for name in ("torch", "ncu", "nsys")},
    }
    points = expanded(experiments, server=SYNCHRONOUS)
    names = list(dict.fromkeys(point.session for point in points.values()))
    assert len(names) == 4
    assert names[0].startswith("tiny-opt-vllm-offline-") and "torch" not in names[0]
    assert [name.split("-")[4] for name in names[1:]] == ["torch", "ncu", "nsys"]
    for point in points.values():
        assert session_of(point.record) == point.session


def test_a_record_of_a_server_has_its_own_sessions_name() -> None:
    (session,) = (study := small_study()).sessions
    assert {session_of(point.record) for point in study.points.values()} == {session}


@pytest.mark.parametrize(
    ("source", "given", "window"),
    [
        ("torch", {}, {"prefill_steps": 1, "decode_from": 48, "decode_steps": 2}),
        ("ncu", {}, {"prefill_steps": 0, "decode_from": 49, "decode_steps": 1}),
        (
            "nsys",
            {"prefill_steps": 3, "decode_from": 7, "decode_steps": 5},
            {"prefill_steps": 3, "decode_from": 7, "decode_steps": 5},
        ),
    ],
)
def test_the_profiled_window_is_the_middle_of_decode_by_default(
    source: str, given: dict[str, int], window: dict[str, int]
) -> None:
    points = expanded(output_tokens=100, server={"async-scheduling": False}, profiler={"source": source, **given})
    assert {str(point.record["window"]) for point in points.values()} == {str(window)}


def test_one_decode_step_can_be_profiled_and_no_more_than_there_are() -> None:
    profiler = {"source": "torch", "decode_steps": 1}
    (point,) = expanded(batch=1, output_tokens=2, server=SYNCHRONOUS, profiler=profiler).values()
    assert point.record["window"]["decode_from"] == 0
    assert "2 output tokens have 1 decode steps" in refusal(
        batch=1, output_tokens=2, server=SYNCHRONOUS, profiler={"source": "torch"}
    )


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ({}, "graphs"),
        ({"enforce-eager": True}, "eager"),
        ({"compilation-config": {"cudagraph_mode": "none"}}, "compiled"),
        ({"compilation-config": {"cudagraph_mode": "FULL"}}, "graphs"),
    ],
)
def test_the_mode_is_what_the_flags_ask_for(flags: dict[str, Any], mode: str) -> None:
    assert {mode_of(point.record) for point in expanded(server=flags).values()} == {mode}


TORCH = {"source": "torch"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 8, "server": {"max-num-seqs": 4}}, "batch 8 is above the engine's max-num-seqs 4"),
        ({"server": {"max-model-len": 23}}, "16 prompt and 8 output tokens are above max-model-len 23"),
        ({"prompt_tokens": 4096}, "4096 prompt and 8 output tokens are above max-model-len 2048"),
        ({"server": {"max-model-len": "long"}}, "max-model-len has to be a whole number here, not 'long'"),
        ({"profiler": TORCH}, "a profiler needs `server: {async-scheduling: false}`"),
        ({"profiler": TORCH, "server": {"async-scheduling": True}}, "a profiler needs"),
        ({"profiler": {**TORCH, "metrics": ["stalls"]}, "server": SYNCHRONOUS}, "are ncu's; remove them for torch"),
        ({"profiler": {**TORCH, "kernels": "x"}, "server": SYNCHRONOUS}, "are ncu's; remove them for torch"),
        ({"profiler": {**TORCH, "args": ["--x"]}, "server": SYNCHRONOUS}, "profiler.args are for ncu and nsys"),
        (
            {"profiler": {"source": "nsys", "args": ["--output=/x"]}, "server": SYNCHRONOUS},
            "'--output=/x' is set by memgap itself",
        ),
        ({"profiler": {"source": "ncu", "args": ["; rm"]}, "server": SYNCHRONOUS}, "`--option` or `--option=value`"),
        (
            {"profiler": {**TORCH, "decode_from": 6}, "server": SYNCHRONOUS},
            "8 output tokens have 7 decode steps, but profiler wants steps 6 to 7",
        ),
        ({"server": {"port": 1}}, "the flag 'port' has no use for an engine in process"),
        ({"server": {"load-format": "dummy"}}, "the flag 'load-format'"),
        ({"server": {"api-server-count": 2}}, "the flag 'api-server-count'"),
        ({"env": {"VLLM_API_KEY": "x"}}, "VLLM_API_KEY is set by memgap itself"),
        ({"engine": "vlm"}, "unknown engine 'vlm' (did you mean 'vllm'?)"),
        ({"profiler": {"source": "perf"}}, "'perf' is none of torch, ncu, nsys"),
        ({"profiler": {}}, "the key 'source' is missing"),
        ({"outputs": "all"}, "config: offline.phases.fixed.outputs"),
        ({"batch": 0}, "config: offline.phases.fixed.batch"),
        ({"batch_cap": 4}, "unknown key 'batch_cap'"),
    ],
)
def test_what_contradicts_itself_is_one_clear_sentence(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_an_unknown_model_is_named_with_the_near_one() -> None:
    with pytest.raises(UserError, match=r"unknown model 'tiny-op' \(did you mean tiny-opt"):
        expanded(model="tiny-op")


@pytest.mark.parametrize("name", ["model", "batch", "prompt_tokens", "output_tokens"])
def test_what_is_missing_is_named(name: str) -> None:
    configuration = config()
    del configuration["offline"]["phases"]["fixed"][name]
    nor = "nor a `dataset`" if name.endswith("tokens") else "neither in `fixed` nor in experiment 'default'"
    assert refusal_of(configuration) == f"config: offline.phases: no `{name}` is given, {nor}."


def test_a_batch_can_be_the_first_prompts_of_a_dataset() -> None:
    refused = "with `dataset` lengths are its own and no step is like another; remove `prompt_tokens`"
    assert refused in refusal_of(config(dataset="short"))
    lengths = {"prompt_tokens": None, "output_tokens": None, "dataset": "short"}
    study = load_study(config(batch=[4], **lengths))
    (point,) = (one for one in study.points.values() if one.record.get("kind") == "offline")
    assert point.record["dataset"]["key"] in study.datasets and "prompt_tokens" not in point.record
    assert "batch 33 is above the 32 requests of short" in refusal_of(config(batch=33, **lengths))


def test_a_study_with_the_name_of_a_sweep_is_refused() -> None:
    both = small_config()
    both["engines"]["vllm"] = {"adapter": "vllm"}
    both["offline"] = {"small": config(engine="vllm")["offline"]["phases"]}
    assert "offline.small and sweeps.small have the same name" in refusal_of(both)


def test_the_simulated_engine_cannot_run_in_process() -> None:
    configuration = config()
    configuration["engines"]["mock"] = {"adapter": "mock"}
    configuration["sweeps"]["online"]["fixed"]["engine"] = "vllm"
    configuration["offline"]["phases"]["fixed"]["engine"] = "mock"
    assert "engine 'mock' (adapter mock) does not, the adapter vllm would" in refusal_of(configuration)


def test_of_several_engines_one_has_to_be_named() -> None:
    configuration = config()
    configuration["engines"]["mock"] = {"adapter": "mock"}
    configuration["sweeps"]["online"]["fixed"]["engine"] = "vllm"
    assert "no `engine` is given; known are mock, vllm" in refusal_of(configuration)
    configuration["offline"]["phases"]["fixed"]["engine"] = "vllm"
    assert len(points_of(load_study(configuration))) == 2


def test_axes_that_go_in_step_need_equal_lengths() -> None:
    configuration = config(prompt_tokens=[4, 8], output_tokens=[8, 4])
    configuration["offline"]["phases"]["zip"] = [["prompt_tokens", "output_tokens"]]
    assert len(points_of(load_study(configuration))) == 4
    configuration["offline"]["phases"]["fixed"]["output_tokens"] = [1, 2, 3]
    assert refusal_of(configuration).startswith("config: offline.phases.zip: zipped axes need equally many values")


def test_a_figure_of_an_unknown_study_is_refused() -> None:
    assert "phases" in refusal_of({**config(), "figures": {"fig04": {"study": "phase"}}})


def test_offline_studies_stand_alone_and_are_listed(tmp_path: Path) -> None:
    alone = {name: value for name, value in config().items() if name not in ("sweeps", "datasets")}
    checked = check_config(alone)
    assert check_config(checked) == checked, "what a job reads again"
    rows = list_points(expand_study(checked), tmp_path)
    assert [(row.sweep, row.batch_cap, row.cap_side, row.state) for row in rows] == [
        ("phases", 1, "offline", "missing"),
        ("phases", 4, "offline", "missing"),
    ]
    assert all(row.estimate_s > 0 for row in rows)
