"""Labs that share servers, measured by one plan."""

from pathlib import Path

import pytest

from memgap.errors import UserError
from memgap.labs.points import all_cells
from memgap.labs.shared import shared_plan
from memgap.store.points import PointStore
from memgap.workflow import load_study
from tests.support.labs import lab_config, lab_plan


def test_one_plan_has_the_points_of_all(tmp_path: Path) -> None:
    config = lab_config()
    config["labs"]["02"] = {**config["labs"]["01"], "arms": {"slow": {}, "slower": {"server": {"step-base-ms": 8.0}}}}
    plans = list(load_study(config).labs.values())
    store = PointStore(tmp_path)
    keys = {cell.point.key for plan in plans for cell in all_cells(plan, store)}
    cells = list(all_cells(shared_plan("both", plans), store))
    assert {cell.point.key for cell in cells} == keys and len({cell.point.session for cell in cells}) == 3


def test_labs_of_other_blocks_are_no_one_plan() -> None:
    with pytest.raises(UserError, match="differ in `blocks`"):
        shared_plan("both", [lab_plan(), lab_plan(blocks=2)])
