"""The page to explore in a real browser, where there is one: clicks, slider, keyboard, and a phone's width.

Neither Playwright nor a browser is locked (60 s and more to install): `pip install playwright` and Debian's chromium.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memgap.explore.page import make
from tests.support.explored import advised, inputs, table

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if CHROMIUM is None:
    pytest.skip("no chromium is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the small study."""
    path = tmp_path_factory.mktemp("explore") / "explore.html"
    path.write_text(make(inputs())["page"], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless Chromium."""
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(params=[1280, 360], ids=["desktop", "phone"])
def shown(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Any]:
    """Return the page, drawn, at both widths; it may ask for nothing and complain of nothing."""
    found = browser.new_page(viewport={"width": request.param, "height": 800})
    seen: list[str] = []
    found.on("request", lambda asked: seen.append(asked.url))
    found.on("console", lambda message: seen.append(message.text))
    found.on("pageerror", lambda error: seen.append(str(error)))
    found.goto(file.as_uri())
    found.wait_for_selector("body[data-drawn]", timeout=120_000)
    yield found
    assert seen == [file.as_uri()]
    found.close()


def compare(shown: Any, expected: dict[str, Any], priced: bool = True) -> None:
    """Compare what is shown with the advisor's answer."""
    assert shown.inner_text("#sentence") == expected["sentence"]
    said = {
        name: shown.inner_text(f"#{name}").split("\n")[0] for name in ("b_opt", "freed", "replicas", "cost", "sure")
    }
    if expected["b_opt"] is None:
        assert set(said.values()) - {said["sure"]} == {"none"}
        return
    need = expected["memory"]
    assert said["b_opt"] == str(expected["b_opt"])
    assert said["freed"] == f"{significant(need.kv_freed_bytes / 1e9)} GB"
    assert said["replicas"] == str(need.replicas)
    assert float(said["cost"].removesuffix(" USD")) == pytest.approx(expected["usd"], rel=5e-3)
    assert float(said["sure"].removesuffix(" %")) == pytest.approx(100 * expected["same_fraction"], abs=0.2)


def significant(value: float) -> str:
    """Return a value with three significant digits, without trailing zeros."""
    return f"{round(value, 2 - math.floor(math.log10(value))):g}"


def test_the_slider_moves_the_advisors_answer(shown: Any) -> None:
    compare(shown, advised(table(), {"multiple": 2.0, "times_latency_at": 32}))
    for step in (0, 130, 200, 250, 390):
        shown.eval_on_selector(
            "#slo", "(one, step) => { one.value = step; one.dispatchEvent(new Event('input')); }", step
        )
        compare(shown, advised(table(), {"ms": float(shown.input_value("#ms").replace(",", ""))}))
    shown.fill("#ms", "12.6")
    compare(shown, advised(table(), {"ms": 12.6}))
    shown.click("#configured")
    compare(shown, advised(table(), {"multiple": 2.0, "times_latency_at": 32}))


def test_models_gpus_and_metrics_are_chosen_by_clicks(shown: Any) -> None:
    shown.select_option("#model", label="small")
    compare(shown, advised(table("small", speed=2.1), {"multiple": 2.0, "times_latency_at": 32}))
    shown.select_option("#metric", label="Inter-token latency, mean (ms)")
    shown.wait_for_function("document.querySelector('#chart').textContent.includes('Inter-token latency')")
    shown.select_option("#gpu", label="NVIDIA A10")
    assert shown.inner_text("#cost").startswith("no price") and shown.input_value("#usd") == ""
    shown.click("#models button:has-text('big')")
    assert shown.input_value("#gpu") == "NVIDIA H200" and shown.input_value("#usd") == "3.5"


def test_it_is_worked_by_keyboard_alone(shown: Any) -> None:
    before = float(shown.input_value("#ms"))
    shown.focus("#slo")
    shown.keyboard.press("ArrowRight")
    assert float(shown.input_value("#ms")) > before
    assert shown.get_attribute("#configured", "aria-pressed") == "false"
    marks = shown.locator("#chart [tabindex='0']")
    assert marks.count() == 24
    marks.nth(4).focus()
    assert "Cap 2, repeat 1: good" in shown.inner_text("#point")
    shown.focus("#caps button[data-cap='256']")
    shown.keyboard.press("Enter")
    said = shown.inner_text("#point")
    assert "out of memory" in said and "vllm serve MODEL --max-model-len 2048" in said


def test_nothing_is_cut_off_and_every_point_can_be_touched(shown: Any) -> None:
    assert shown.evaluate("document.documentElement.scrollWidth") <= shown.viewport_size["width"]
    shown.locator("#chart [tabindex='0']").nth(10).click(force=True)
    assert "verdict" in shown.inner_text("#point")
