"""The labs as files: each expected effect of the course is a claim, and sizes fit all labs."""

import re
from pathlib import Path

import pytest

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.labs.__main__ import plans_of
from memgap.labs.metric import CLASS_COLUMNS, column_names
from memgap.labs.tables import TEXT, claims_table

CONFIG = Path(__file__).parents[2] / "config/labs"
CLAIMS = {"01": 4, "02": 4, "03": 4, "04": 5, "05": 5, "06": 4, "07": 3, "08": 5, "10": 5, "17": 4}
"""How many expected effects the course has of each lab; the ids count from 1, and more may follow."""


@pytest.mark.parametrize("lab", CLAIMS)
def test_each_expected_effect_is_a_claim_of_few_lines(lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parents[1])
    file = CONFIG / f"{lab}.yaml"
    for size in ("cpu", "gpu"):
        plans = plans_of([file, CONFIG / f"size-{size}.yaml"])
        claimed = {one.partition(".")[2].rstrip("abc") for plan in plans.values() for one in plan["claims"]}
        assert {str(number + 1) for number in range(CLAIMS[lab])} <= claimed
        assert all(plan["blocks"] == 3 for plan in plans.values())
        assert any("aa" in plan["claims"] for plan in plans.values()), "no arm of the lab is measured twice"
    assert len(file.read_text().splitlines()) <= 40


def test_a_claim_that_nothing_can_test_yet_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parents[1])
    plan = plans_of([CONFIG / "17.yaml", CONFIG / "size-cpu.yaml"])["17"]
    (row,) = claims_table(plan, [], {}).query("id == '17.6'").to_dict("records")
    assert row["verdict"] == "not tested" and "only without a stream" in row["reason"]


def test_a_file_of_sizes_alone_is_no_lab() -> None:
    overlay = {"labs": {"05": {"fixed": {"server": {"max-model-len": 512}}}}}
    with pytest.raises(UserError, match="the file of a lab"):
        check_config(overlay)


@pytest.mark.parametrize("lab", CLAIMS)
def test_each_question_to_the_reader_is_answered_by_a_column(lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parents[1])
    plans = plans_of([CONFIG / f"{lab}.yaml", CONFIG / "size-gpu.yaml"])
    columns = {name for kind in ("serving", "offline", "groups") for name in column_names(kind)} | {
        *TEXT,
        *CLASS_COLUMNS,
    }
    beside = {name for plan in plans.values() for part in ("arms", "axes") for name in plan[part]} | {".inf"}
    page = (CONFIG.parents[1] / f"docs/labs/{lab}.md").read_text()
    rows = page.partition("## Questions")[2].strip().splitlines()[2:]
    assert rows
    for row in rows:
        named = [
            one.partition(".")[0] if one not in beside else one for one in re.findall(r"`([^`]+)`", row.split("|")[2])
        ]
        assert set(named) <= columns | beside | {one.partition(".")[0] for one in beside}, row
        assert set(named) & columns, f"no column answers: {row}"
