"""A real model on the real engine: it answers in English and ends its answers, and that is measured."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.config.load import check_config
from memgap.datasets import build_dataset
from memgap.engine.identity import engine_python, engine_record
from memgap.errors import UserError
from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run_load
from memgap.loopback import fetch
from memgap.models.writing import write_model
from memgap.study.study import expand_study
from tests.support.sessions import run_all
from tests.support.waiting import LAST_RESORT_S

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = yaml.safe_load((REPOSITORY / "config/real.yaml").read_text(encoding="utf-8"))
NAME = "smollm2-135m-instruct"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """Make the model from its package, and start the server of the example's points."""
    folder = tmp_path_factory.mktemp("real")
    record = next(iter(expand_study(check_config(CONFIG)).points.values())).record
    try:
        write_model(record["model"], folder / "model", engine_python("auto"))
    except UserError as error:
        if "cannot fetch" not in str(error):
            raise
        pytest.skip(str(error))
    with EngineServer(
        HostPlan(record, str(folder / "model"), engine_python("auto"), folder, 300), folder / "log"
    ) as running:
        running.start()
        yield running


def test_the_answers_are_english(server: EngineServer) -> None:
    def answer(question: str) -> tuple[str, str]:
        asked = {"messages": [{"role": "user", "content": question}], "max_tokens": 64, "temperature": 0}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.api_key}"}
        body = json.dumps({"model": NAME, **asked}).encode()
        choice = json.loads(fetch(f"{server.url}/v1/chat/completions", LAST_RESORT_S, body, headers)[1])["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    text, reason = answer("What is the capital of France?")
    assert "Paris" in text and reason == "stop"
    assert {"the", "is", "are", "and"} & set(answer("Name three primary colors.")[0].lower().split())


def test_answers_end_by_themselves_and_both_sides_count_them(
    server: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", server.api_key)
    questions = {"kind": "texts", "requests": 16, "output_tokens": 64}
    asked = {"url": server.url, "dataset": "questions", "batch_cap": 4, "load": {"requests": 8, "warmup_requests": 1}}
    there = {
        "engines": {"there": {"adapter": "vllm"}},
        "datasets": {"questions": questions},
        "endpoints": {"there": {"key_variable": "THE_KEY", "fixed": asked}},
        "collectors": {"interval_s": 0.1},
    }
    run_all(expand_study(check_config(there)), tmp_path)
    (stored,) = (tmp_path / "points").glob("[!.]*/point.json")
    point = json.loads(stored.read_text())
    assert point["status"] == "ok", point["error"]
    summary = point["summary"]
    assert summary["requests_ended"] >= 1 and summary["requests_ended"] + summary["requests_cut"] == 8
    assert summary["output_tokens"] == summary["server_output_tokens"] <= 8 * 64
    assert summary["prompt_tokens"] == summary["server_prompt_tokens"] > 0


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_texts_are_sent_as_a_sweep_sends_them(server: EngineServer, endpoint: Any) -> None:
    dataset = next(iter(expand_study(check_config(CONFIG)).datasets.values()))
    prompts = [Prompt(24, None, one.text) for one in build_dataset(dataset)[:4]]
    plan = LoadPlan(NAME, "closed", 4, 4, endpoint=endpoint, ignore_eos=False, api_key=server.api_key)
    result = asyncio.run(run_load(plan, prompts, [server.url]))
    assert {one.status for one in result.results} == {"ok"}, [one.error for one in result.results]
    assert result.token_source == "token_ids"
    for one in result.results:
        assert one.output_tokens_seen == one.output_tokens_server
        assert one.finish_reason in ("stop", "length") and (one.finish_reason == "stop" or one.output_tokens == 24)
        assert one.first_text_s == one.first_answer_s, "nothing reasons"
        assert one.first_token_s is not None and one.first_token_s <= (one.first_text_s or one.first_token_s)
    assert any(one.first_text_s is not None for one in result.results), "a reply may be an end and nothing else"
