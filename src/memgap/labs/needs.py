"""What a lab or a claim needs and is not there, so that it is not tested, and why."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

REAL_WEIGHTS = ("package", "hub", "path")
CUDA, CPU = "cuda", "cpu"
Plan = Mapping[str, Any]
Needs = Mapping[str, Any]


def unmet_in_plan(plan: Plan) -> dict[str, str]:
    """Return what the plan itself lacks, by claim; the lab's own needs under ""."""
    weights = {cell["record"]["model"]["weights"] for cell in plan["cells"]}
    adapters = {c["record"]["engine"]["adapter"] for c in plan["cells"] if c["arm"] not in plan["left_out"]}

    def lacking(needs: Needs) -> str:
        if needs.get("weights") == "real" and not weights <= set(REAL_WEIGHTS):
            return "it needs real weights, and the model's are made up"
        if "engine" in needs and needs["engine"] not in adapters:
            return f"it needs the engine {needs['engine']}, which is not installed or in no arm"
        return ""

    return _unmet(plan, lacking)


def unmet_on_machine(plan: Plan, gpus: int) -> dict[str, str]:
    """Return what a machine with so many GPUs lacks."""

    def lacking(needs: Needs) -> str:
        if needs.get("device") == CUDA and not gpus:
            return "it needs a GPU, and this machine has none"
        if needs.get("device") == CPU and gpus:
            return "it needs a machine without a GPU"
        if needs.get("gpus", 0) > gpus:
            return f"it needs {needs['gpus']} GPUs, and this machine has {gpus}"
        return ""

    return _unmet(plan, lacking)


def unmet_in_points(plan: Plan, devices: Iterable[str]) -> dict[str, str]:
    """Return what points that were measured on such devices lack."""
    seen = set(devices)

    def lacking(needs: Needs) -> str:
        wanted = needs.get("device", CUDA if needs.get("gpus") else "")
        return (
            f"it needs the device {wanted}, and was measured on {', '.join(sorted(seen))}" if wanted not in seen else ""
        )

    return _unmet(plan, lambda needs: lacking(needs) if seen and {"device", "gpus"} & needs.keys() else "")


def asks_for_gpus(plan: Plan) -> bool:
    """Whether it matters which GPUs there are."""
    return any({"gpus", "device"} & needs.keys() for needs in _wanted(plan).values())


def _wanted(plan: Plan) -> dict[str, Needs]:
    return {"": plan["needs"], **{name: claim.get("needs", {}) for name, claim in plan["claims"].items()}}


def _unmet(plan: Plan, lacking: Callable[[Needs], str]) -> dict[str, str]:
    found = {name: lacking(needs) for name, needs in _wanted(plan).items()}
    return {name: why for name, why in found.items() if why}
