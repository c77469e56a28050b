"""An engine that cannot do what a configuration wants is one clear sentence; the page has the table as it is."""

import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import schema
from memgap.engine.adapters import ADAPTERS, table
from memgap.engine.base import EngineAdapter
from memgap.engine.capabilities import DESCRIPTIONS, Capabilities, can
from memgap.engine.reference import capability_table, with_table
from memgap.errors import UserError
from memgap.workflow import load_study
from tests.support.records import small_config

PAGE = Path(__file__).resolve().parents[2] / "docs/engines.md"


def with_engine(adapter: str, **changes: Any) -> dict[str, Any]:
    """Return a configuration of one engine; `changes` go into the sweep's fixed arguments."""
    config = small_config(**{"engine": "mine", "server": {}, **changes})
    config["engines"] = {"mine": {"adapter": adapter, "version": "1.0"}}
    return config


def test_the_page_has_the_table_as_it_is() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "run `make docs`"
    assert all(words in capability_table() for words in DESCRIPTIONS.values())


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(UserError, match="lacks the lines"):
        with_table("# Engines\n")


def test_every_capability_is_described_and_every_adapter_can_be_configured() -> None:
    assert {one.name for one in fields(Capabilities)} == {*DESCRIPTIONS, "measured"}
    assert set(schema()["$defs"]["engine"]["properties"]["adapter"]["enum"]) == set(ADAPTERS)
    with pytest.raises(KeyError):
        can(Capabilities(), "flies")


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_adapter_has_the_whole_shape(name: str) -> None:
    for part in (*typing.get_type_hints(EngineAdapter), "launch", "metrics_sample", "facts", "failure_kind"):
        assert hasattr(ADAPTERS[name], part), part
    assert ADAPTERS[name].metrics_sample({}) == {}


def test_what_can_be_asked_is_what_the_table_says() -> None:
    assert table()["vllm"].in_process
    assert not table()["mock"].in_process
    assert table()["hf"] == Capabilities(static_batches=True, measured="5.17.0")
    assert not table()["trtllm"].measured


@pytest.mark.parametrize(
    ("adapter", "changes", "sentence"),
    [
        ("lmdeploy", {"replicas": 2}, "`replicas` needs an engine that has a flag for its share of a GPU's memory"),
        ("lmdeploy", {"mps": True}, "`mps` needs an engine"),
        (
            "lmdeploy",
            {"profile": {"after_s": 1, "seconds": 1}},
            "`profile` needs an engine that starts and stops torch.pro",
        ),
        ("hf", {"replicas": 2}, "`replicas` needs an engine"),
        ("hf", {"mps": True}, "`mps` needs an engine"),
        ("hf", {"profile": {"after_s": 1, "seconds": 1}}, "`profile` needs an engine"),
        ("hf", {"cap_side": "server"}, "`cap_side: server` needs an engine that runs as a server"),
        (
            "hf",
            {"load": {"requests": 4, "arrival": "poisson", "rate_req_s": 1}},
            "load.arrival poisson needs an engine",
        ),
        ("hf", {"load": {"requests": 4, "endpoint": "chat"}}, "load.endpoint chat needs an engine"),
        ("hf", {"load": {"requests": 4, "client_processes": 2}}, "load.client_processes needs an engine"),
    ],
)
def test_one_sentence_names_the_place_the_engine_and_who_would_do(
    adapter: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as refused:
        load_study(with_engine(adapter, **changes))
    text = str(refused.value)
    assert text.startswith(f"config: sweeps.small: {sentence}")
    assert f"engine 'mine' (adapter {adapter}) does not" in text
    assert "vllm would" in text
    assert text.count(".") <= 3


def test_an_offline_study_needs_an_engine_in_process() -> None:
    config = small_config()
    config["offline"] = {
        "phases": {"fixed": {"engine": "mock", "model": "tiny-opt", "batch": 1, "prompt_tokens": 4, "output_tokens": 4}}
    }
    with pytest.raises(
        UserError, match=r"offline study needs an engine that runs inside the worker .* adapter vllm would"
    ):
        load_study(config)


@pytest.mark.parametrize("figure", ["fig10", "fig11"])
def test_the_advice_is_for_engines_whose_flags_it_writes(figure: str) -> None:
    config = with_engine("lmdeploy", load={"requests": 4, "prompt_form": "text"})
    config["figures"] = {figure: {"sweep": "small"}}
    with pytest.raises(UserError, match=f"config: figures.{figure}.sweep: the advice in {figure} needs an engine"):
        load_study(config)
    config["figures"] = {"fig02": {"sweep": "small"}}
    assert load_study(config).figure_sweeps() == []
    served = small_config()
    served["figures"] = {"fig02": {"sweep": "small"}}
    assert load_study(served).figure_sweeps() == ["small"]
