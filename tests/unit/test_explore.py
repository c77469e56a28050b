"""The page to explore says at every bound what the advisor would, in one file that loads nothing."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import quickjs
from docutils.core import publish_parts
from jinja2 import Environment

from memgap.advisor.bca import Profile, advise
from memgap.advisor.report import advice_for, write_advice
from memgap.errors import UserError
from memgap.explore.numbers import as_json, bend, model_numbers
from memgap.explore.page import FOLDER, _runtime, make
from memgap.workflow import load_study
from memgap.workflow.code import code_of
from memgap.workflow.targets import target_files
from tests.support.explored import advised, inputs, numbers_in, settings, table
from tests.support.records import small_config

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURED = {"multiple": 2.0, "times_latency_at": 32}
SLOS: list[dict[str, Any]] = [CONFIGURED, {"multiple": 1.5, "times_latency_at": 10}]
SLOS += [{"ms": ms} for ms in (1.0, 8.0, 8.2, 9.1428, 12.6, 14.0, 17.2, 26.3, 1000.0)]


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page of the small study."""
    return make(inputs())["page"]


@pytest.fixture(scope="module")
def script(page: str) -> quickjs.Context:
    """Return an engine that has run the page's rule, with the page's numbers as STUDY."""
    (rule,) = re.findall(r'<script id="rule">(.*?)</script>', page, re.DOTALL)
    engine = quickjs.Context()
    engine.eval(rule)
    engine.eval(f"const STUDY = {as_json(numbers_in(page))}; const all = {{}};")
    engine.eval(
        "for (const [i, one] of STUDY.models.entries()) all[i] = Object.fromEntries("
        "Object.entries(one.draws).map(([cap, two]) => [cap, two.map((text) => text && floats(text))]))"
    )
    return engine


def called(engine: quickjs.Context, call: str) -> Any:
    """Return what a call in the engine returns."""
    return json.loads(engine.eval(f"JSON.stringify({call})"))


@pytest.mark.parametrize("slo", SLOS, ids=str)
@pytest.mark.parametrize("model", [0, 1])
def test_the_page_answers_as_the_advisor_does(script: quickjs.Context, model: int, slo: dict[str, Any]) -> None:
    expected = advised(table() if model == 0 else table("small", speed=2.1), slo)
    one = f"STUDY.models[{model}]"
    found = called(script, f"answer({one}, 'itl_mean_ms', {json.dumps(slo)}, 0.1, {one}.usd_per_gpu_hour)")
    assert (found["b_opt"], found["sentence"]) == (expected["b_opt"], expected["sentence"])
    assert found["slo_ms"] == pytest.approx(expected["slo_ms"])
    assert [each["reason"] for each in found["candidates"]] == expected["reasons"]
    if expected["memory"] is None:
        assert found["memory"] is None and found["usd"] is None
    else:
        for name in ("kv_freed_bytes", "kv_with_margin_bytes", "fraction", "replicas"):
            assert found["memory"][name] == getattr(expected["memory"], name)
        assert found["usd"] == pytest.approx(expected["usd"])
    sure = called(script, f"stability({one}.profiles.itl_mean_ms, all[{model}], {json.dumps(slo)}, 0.1)")
    assert sure["same_fraction"] == pytest.approx(expected["same_fraction"], abs=1e-3)


def test_another_latency_can_be_bounded(script: quickjs.Context) -> None:
    found = called(script, "answer(STUDY.models[0], 'ttft_mean_ms', {ms: 38}, 0.1, 3.5)")
    expected = advised(table(), {"ms": 38}, "ttft_mean_ms")
    assert (found["b_opt"], found["sentence"]) == (expected["b_opt"], expected["sentence"]) and found["b_opt"] == 16


def test_nothing_to_judge_and_nothing_to_gain_are_said_as_the_advisor_says_it(script: quickjs.Context) -> None:
    profiles = [
        [Profile(4, None, None, "preempted")],
        [Profile(8, 600.0, 12.0), Profile(32, 1500.0, 20.0)],
        [Profile(2, 100.0, 3.0), Profile(4, 100.0, 3.0), Profile(8, 0.0, 3.0)],
    ]
    for profile in profiles:
        caps = [
            {"batch_cap": one.batch_cap, "throughput_tok_s": one.throughput_tok_s, "latency_ms": one.latency_ms}
            | {"excluded": one.excluded}
            for one in profile
        ]
        for epsilon in (0.01, 1.0):
            expected = advise(profile, {"ms": 100.0}, epsilon)
            found = called(script, f"advise({json.dumps(caps)}, {{ms: 100}}, {epsilon})")
            assert (found["b_opt"], found["sentence"]) == (expected.b_opt, expected.sentence)


def test_the_page_is_one_file_that_loads_nothing(page: str) -> None:
    assert len(page.encode()) < 2_000_000
    assert "default-src 'none'" in page
    before, _, after = page.partition(_runtime())
    assert not re.findall(r"(?:src|href)=|https?://(?!vega.github.io/schema)", before + after)
    assert page.count("</script>") == 4 and "<b>out of memory" not in page


def test_the_page_begins_with_the_answer(page: str) -> None:
    said = page[page.index("<h1>") : page.index("Move the bound")]
    assert "what is advised is a cap of " in said and "nothing here can be held against it" in said
    assert numbers_in(page)["models"][0]["advice"]["advice"] in said


def test_every_point_has_its_verdict_settings_and_command_line(page: str) -> None:
    points = numbers_in(page)["models"][0]["points"]
    assert len(points) == 25
    assert points[0]["command"] == "vllm serve MODEL --max-model-len 2048"
    assert (points[0]["verdict"], points[0]["settings"]["engine"], points[0]["use"]) == ("valid", "vllm", "good")
    assert (points[-2]["use"], points[-1]["use"], points[-1]["values"].get("e2e_mean_ms")) == (
        "preempted",
        "failed",
        None,
    )


def test_the_twin_is_there_where_it_was_made() -> None:
    names = ["key", "batch_cap", "repeat", "quantity", "predicted", "low", "high", "measured", "role"]
    points = table()
    rows = [[key, 4, i, "itl_mean_ms", 2.0, 1.0, 3.0, 2.5, "held out"] for i, key in enumerate(points["key"][6:8])]
    twin = type(points)([*rows, ["of another sweep", 8, 0, "itl_mean_ms", 1, 1, 1, 1, "held out"]], columns=names)
    found = model_numbers(points, "big", settings(), twin)["twin"]
    assert found == {
        "itl_mean_ms": [{"cap": 4, "value": 2.0, "low": 1.0, "high": 3.0, "measured": 2.5, "role": "held out"}]
    }


def test_without_a_price_or_repeats_nothing_is_made_up() -> None:
    once = table()
    once = once[once["repeat"] == 0]
    found = model_numbers(once, "big", settings(usd_per_gpu_hour={}))
    assert found["usd_per_gpu_hour"] is None and found["draws"] == {}


def test_a_machine_without_a_gpu_has_memory_but_no_replicas() -> None:
    found = model_numbers(table().assign(device="cpu", gpu_name=None), "big", settings(usd_per_gpu_hour={"CPU": 0.08}))
    memory = found["caps"]["32"]["memory"]
    assert (found["gpu"], found["usd_per_gpu_hour"], memory["replicas"]) == ("CPU", 0.08, None)
    assert memory["kv_freed_bytes"] > 0


def test_the_bend_is_the_last_doubling_that_pays() -> None:
    def curve(*rates: float) -> int | None:
        return bend([Profile(2**i, rate, 1.0) for i, rate in enumerate(rates)])

    assert curve(100, 200, 400, 440, 450) == 4
    assert curve(100, 200, 400, 440, 600) is None
    assert curve(100) is None


def test_its_scripts_are_among_what_makes_it_stale() -> None:
    made_by = {path.rpartition("/")[2] for path in code_of("memgap.explore.page")}
    assert {one.name for one in FOLDER.iterdir() if one.suffix in (".js", ".css", ".html")} <= made_by


def test_the_target_needs_the_sweep_named() -> None:
    config = small_config()
    with pytest.raises(UserError, match=r"config: tables\.explore is missing; name the sweep"):
        target_files(load_study(config), "explore")
    config["tables"] = {"explore": {"sweep": "small"}}
    assert target_files(load_study(config), "explore") == ["results/explore.html"]


def test_the_report_opens_with_the_advice_and_the_story(tmp_path: Path) -> None:
    texts = {
        "big.yaml": write_advice(advice_for(table(), "big", settings())),
        "small.yaml": write_advice(advice_for(table("small"), "small", settings(slo={"ms": 0.1}))),
        **dict.fromkeys(("plan.yaml", "explore.html", "claims.html"), "model: big\n"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    text = (REPOSITORY / "workflow/report/workflow.rst").read_text()
    links = "".join(f"\n.. _{name}: javascript:{name}\n" for name in texts)
    files = [SimpleNamespace(target=name, path=tmp_path / name) for name in texts]
    environment = Environment(trim_blocks=True, lstrip_blocks=True)  # as in Snakemake
    page = publish_parts(environment.from_string(text + links).render(files=files), writer="html")["html_body"]
    said = " ".join(re.sub("<[^>]+>", "", page).split())
    assert "System Message" not in said
    assert "big. Run with a batch cap of 64: " in said and "small. No cap meets the latency bound" in said
    assert page.count("<li>") == 4 and said.index("explore.html: All of it") < said.index("claims.html: What holds")
