"""One plan of several labs that use the same servers, so that each of these is started once."""

from collections.abc import Mapping, Sequence
from typing import Any

from memgap.errors import UserError
from memgap.points.point import Record


def shared_plan(name: str, plans: Sequence[Mapping[str, Any]]) -> Record:
    """Return a plan whose blocks have the cells of all plans. It has no claims: its points are those of the labs, which
    find them in the store.

    Raises UserError where the plans differ in their blocks, in how servers are kept, or in what rates are shares of.
    """
    first = plans[0]
    for setting in ("blocks", "servers", "averaging", "recorded"):
        if any(plan[setting] != first[setting] for plan in plans):
            raise UserError(f"--as {name}: the labs differ in `{setting}`; plan them apart.")
    if sum(1 for plan in plans if plan["capacities"]) > 1:
        raise UserError(f"--as {name}: only one of the labs may have rates that are shares of a capacity.")
    joined: Record = {**first, "lab": name, "claims": {}, "needs": {}, "figure": {"panels": []}}
    joined["reference"] = next((plan["reference"] for plan in plans if plan["capacities"]), first["reference"])
    joined["cells"] = [one for plan in plans for one in plan["cells"] if one["arm"] not in plan["left_out"]]
    joined["capacities"] = [one for plan in plans for one in plan["capacities"]]
    joined["left_out"] = {}
    for part in ("options", "arms", "kinds", "axes"):
        joined[part] = {key: one for plan in plans for key, one in plan[part].items()}
    return joined
