"""One load test: users who repeat prompts, once through Locust and, to compare, once through the load generator."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from memgap.canonical import content_key
from memgap.errors import UserError
from memgap.kinds.locust.environment import LOCUST_VERSION
from memgap.study.point import Point, Record, make_point, server_record, whole_flag

KIND = "loadtest"
LOCUST, OWN = "locust", "memgap"
REQUIRED_ARGUMENTS = ("model", "dataset", "users", "output_tokens")
LOAD = ("endpoint", "temperature", "ignore_eos", "request_timeout_s", "warmup_requests", "think_time_s", "seed")
"""Arguments that mean what they mean in a sweep's `load`."""
REQUESTS_PER_USER = 10


def is_loadtest(record: Mapping[str, Any]) -> bool:
    """Whether a point's record is that of a load test."""
    return record.get("kind") == KIND


def loadtest_points(
    arguments: Mapping[str, Any], engine: Record, model: Record, dataset: Record, where: str
) -> Iterator[Point]:
    """Yield the points of `arguments` (without lists), in the order in which they are measured.

    With `compare` every repeat has a point of either client, and which of them goes first changes from repeat to
    repeat. Raises UserError where arguments contradict one another; `where` names the load test.
    """
    clients = (LOCUST, OWN) if arguments.get("compare", True) else (LOCUST,)
    for repeat in range(arguments.get("repeats", 1)):
        for client in clients if repeat % 2 == 0 else clients[::-1]:
            yield _point(arguments, engine, model, dataset, client, repeat, where)


def loadtest_session_name(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures a load test: one server."""
    return f"{record['model']['name']}-{record['engine']['name']}-loadtest-{content_key(server_record(record), 8)}"


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


def picks(record: Mapping[str, Any]) -> list[int]:
    """Return which of the prompts each request takes: always the first of one, a random one of several; seeded."""
    test, requests = record["loadtest"], record["load"]["requests"]
    drawn = np.random.default_rng([record["load"]["seed"], 2]).integers(0, test["prompts"], requests)
    return [int(one) for one in drawn]


def _point(
    arguments: Mapping[str, Any],
    engine: Record,
    model: Record,
    dataset: Record,
    client: str,
    repeat: int,
    where: str,
) -> Point:
    users, prompts, output = int(arguments["users"]), int(arguments.get("prompts", 1)), int(arguments["output_tokens"])
    if dataset["kind"] in ("trace", "multi-turn"):
        raise UserError(f"{where}: users repeat single prompts, which a dataset of kind {dataset['kind']} has not.")
    if prompts > dataset["requests"]:
        raise UserError(
            f"{where}: prompts is {prompts}, but datasets.{dataset['name']}.requests is {dataset['requests']}; "
            "raise it."
        )
    flags = {flag: value for flag, value in arguments.get("server", {}).items() if value is not None}
    longest = whole_flag(flags, "max-model-len", int(model["architecture"]["max_length"]), where)
    if output >= longest:
        raise UserError(f"{where}: output_tokens is {output}, which leaves no room in max-model-len {longest}.")
    load = {name: arguments[name] for name in LOAD if name in arguments}
    load["requests"] = _requests(arguments, users, where)
    given = {name: arguments[name] for name in ("server", "env") if name in arguments}
    base = make_point(
        {**given, "batch_cap": users, "cap_side": "client", "load": load}, engine, model, dataset, repeat, where
    )
    test: Record = {"client": client, "users": users, "prompts": prompts, "output_tokens": output}
    if client == LOCUST:
        spawn_rate = float(arguments.get("spawn_rate_users_s", users))
        test |= {"locust": LOCUST_VERSION, "spawn_rate_users_s": spawn_rate, "stream": arguments.get("stream", True)}
    record = {**base.record, "kind": KIND, "loadtest": test}
    return Point(key=content_key(record), record=record, session=loadtest_session_name(record))


def _requests(arguments: Mapping[str, Any], users: int, where: str) -> int:
    if "requests" in arguments and "requests_per_user" in arguments:
        raise UserError(f"{where}: give at most one of requests and requests_per_user.")
    if "requests" in arguments:
        return int(arguments["requests"])
    return users * int(arguments.get("requests_per_user", REQUESTS_PER_USER))
