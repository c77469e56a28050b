"""One load test: users who repeat prompts, once through Locust and, to compare, once through the load generator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memgap.errors import UserError
from memgap.kinds.locust.environment import LOCUST_VERSION
from memgap.kinds.online.point import make_point
from memgap.points.point import Point, Record, server_key
from memgap.points.resolve import Resolved

KIND = "loadtest"
LOCUST, OWN = "locust", "memgap"
REQUIRED = ("model", "dataset", "users", "output_tokens")
LOAD = ("endpoint", "temperature", "ignore_eos", "request_timeout_s", "warmup_requests", "think_time_s", "seed")
"""Arguments that mean what they mean in a sweep's `load`."""
REQUESTS_PER_USER = 10


def loadtest_points(found: Resolved) -> Iterator[Point]:
    """Yield the points of resolved arguments, in the order in which they are measured.

    With `compare` every repeat has a point of either client, and which of them goes first changes from repeat to
    repeat. Raises UserError where arguments contradict one another.
    """
    clients = (LOCUST, OWN) if found.arguments.get("compare", True) else (LOCUST,)
    for repeat in range(found.repeats):
        for client in clients if repeat % 2 == 0 else clients[::-1]:
            yield _point(found, client, repeat)


def loadtest_session_name(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures a load test: one server."""
    return f"{record['model']['name']}-{record['engine']['name']}-loadtest-{server_key(record)}"


def scenario(record: Mapping[str, Any]) -> str:
    """Return in words what is asked of the server, such as "10 users, one prompt, 64 tokens"."""
    test = record["loadtest"]
    users, prompts = test["users"], test["prompts"]
    parts = [
        f"{users} user{'s' * (users != 1)}",
        "one prompt" if prompts == 1 else f"{prompts} prompts",
        f"{test['output_tokens']} tokens",
    ]
    return ", ".join(parts)


def variant(record: Mapping[str, Any]) -> str:
    """Return in words what is Locust's alone and not its default, or ""."""
    test = record["loadtest"]
    parts = [] if test.get("stream", True) else ["not streamed"]
    if test.get("spawn_rate_users_s", test["users"]) != test["users"]:
        parts.append(f"{test['spawn_rate_users_s']:g} users/s")
    return ", ".join(parts)


def told(experiment: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Return an experiment of a load test in words, from the records of its points."""
    parts = (
        experiment if experiment != "default" else "",
        scenario(records[0]),
        *dict.fromkeys(variant(one) for one in records),
    )
    return ", ".join(part for part in parts if part)


def picks(record: Mapping[str, Any]) -> list[int]:
    """Return which of the prompts each request takes: always the first of one, a random one of several; seeded."""
    test, requests = record["loadtest"], record["load"]["requests"]
    drawn = np.random.default_rng([record["load"]["seed"], 2]).integers(0, test["prompts"], requests)
    return [int(one) for one in drawn]


def _point(found: Resolved, client: str, repeat: int) -> Point:
    arguments, dataset, where = found.arguments, found.dataset, found.where
    users, prompts, output = int(arguments["users"]), int(arguments.get("prompts", 1)), int(arguments["output_tokens"])
    if dataset["kind"] in ("trace", "multi-turn"):
        raise UserError(f"{where}: users repeat single prompts, which a dataset of kind {dataset['kind']} has not.")
    if prompts > dataset["requests"]:
        raise UserError(
            f"{where}: prompts is {prompts}, but datasets.{dataset['name']}.requests is {dataset['requests']}; "
            "raise it."
        )
    longest = found.flags.longest(found.model)
    if output >= longest:
        bound = found.flags.name("max_model_len")
        raise UserError(f"{where}: output_tokens is {output}, which leaves no room in {bound} {longest}.")
    load: Record = {name: arguments[name] for name in LOAD if name in arguments}
    load["requests"] = _requests(arguments, users, where)
    given: Record = {name: arguments[name] for name in ("server", "env") if name in arguments}
    asked = {**given, "batch_cap": users, "cap_side": "client", "load": load}
    base = make_point(asked, found.engine, found.model, dataset, repeat, where)
    test: Record = {"client": client, "users": users, "prompts": prompts, "output_tokens": output}
    if client == LOCUST:
        spawn_rate = float(arguments.get("spawn_rate_users_s", users))
        test |= {"locust": LOCUST_VERSION, "spawn_rate_users_s": spawn_rate, "stream": arguments.get("stream", True)}
    record = {**base.record, "kind": KIND, "loadtest": test}
    return Point.of(record, loadtest_session_name(record))


def _requests(arguments: Mapping[str, Any], users: int, where: str) -> int:
    if "requests" in arguments and "requests_per_user" in arguments:
        raise UserError(f"{where}: give at most one of requests and requests_per_user.")
    if "requests" in arguments:
        return int(arguments["requests"])
    return users * int(arguments.get("requests_per_user", REQUESTS_PER_USER))
