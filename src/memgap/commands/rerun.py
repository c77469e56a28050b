"""The exact commands behind a stored point, to look at or to run again."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.engine.adapters import adapter_for
from memgap.errors import UserError
from memgap.kinds.registry import kind_of
from memgap.session.run import run_sessions
from memgap.store.results import Results

KEY_NOTE = "# the server was given an API key of its session's own through the environment; any will do"
WORKER_NOTE = "# the worker reads what it measures from a file of its session's own, which is gone; for the record only"


def print_commands(key: str, results: Path) -> None:
    """Print how a stored point's servers were started, quoted for a shell, and how it is measured again.

    Raises UserError for a point that is not in the store.
    """
    point = _stored(key, results)
    record, provenance = point["record"], point["provenance"]
    print(f"# {key}: {record['model']['name']}, {point['status']}, measured {provenance['date_utc']}")
    environment = environment_of(record)
    print(KEY_NOTE if kind_of(record).serves else WORKER_NOTE)
    for command in provenance["commands"]:
        print(shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), *map(str, command)]))
    if not provenance["commands"] or not any(provenance["commands"]):
        print("# no server was started for it")
    print("# measure it again:")
    print(shlex.join([sys.executable, "-m", "memgap", "rerun", key, "--results", str(results), "--measure"]))


def environment_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a point's server or worker was given, with a word in place of the API key."""
    env = {name: str(value) for name, value in record["server"]["env"].items()}
    if not kind_of(record).serves:
        return env
    adapter = adapter_for(record["engine"]["adapter"])
    launch = adapter.launch("python", record, "model", 1024, "KEY")
    return {**launch.env, **env}


def rerun(key: str, results: Path) -> int:
    """Measure a stored point again, in a session of its own; its result takes the old one's place.

    Returns the exit status, see `memgap.session.run.run_sessions`. Raises UserError for a point that is not in the
    store or whose session's plan is not there.
    """
    plan = rerun_plan(key, results)
    return run_sessions(lambda measure: measure(plan), results, None)


def rerun_plan(key: str, results: Path) -> dict[str, Any]:
    """Return the plan of a session that measures one stored point again, made from the plan that measured it."""
    point = _stored(key, results)
    for path in sorted(Results(results).plans.glob("*.json")):
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        mine = [one for one in plan.get("points", []) if isinstance(one, dict) and one.get("key") == key]
        if mine:
            options = {**plan["options"], "remeasure": point["remeasured_for"], "recorded": None, "again": True}
            return {**plan, "session": f"rerun-{key}", "points": mine, "stop": [], "options": options}
    raise UserError(
        f"no plan in {results / 'plans'} names the point {key}, which was measured {point['provenance']['date_utc']}; "
        "name it in `remeasure` of its configuration and run Snakemake."
    )


def _stored(key: str, results: Path) -> dict[str, Any]:
    store = Results(results).store
    point = store.read(key) if key in store.stored_keys() else None
    if point is None:
        raise UserError(f"there is no point {key!r} in {results / 'points'}; `python -m memgap list` shows the keys.")
    return point
