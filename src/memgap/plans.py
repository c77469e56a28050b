"""The four kinds of plan files that rules read."""

from memgap.canonical import canonical_json
from memgap.sweep.study import Study


def plan_text(study: Study, kind: str, name: str) -> str:
    """Return the plan of a session, sweep, model or dataset as canonical JSON; raises KeyError for an unknown one."""
    plans = {
        "session": study.session_plan,
        "sweep": study.sweep_plan,
        "model": study.model_folders.__getitem__,
        "dataset": study.datasets.__getitem__,
        "advisor": lambda _: study.config["advisor"],
    }
    return canonical_json(plans[kind](name)) + "\n"
