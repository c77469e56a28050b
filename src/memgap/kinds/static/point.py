"""The record of a point whose requests run as static batches in a worker process, in the shape of a sweep's points."""

from collections.abc import Mapping
from typing import Any

from memgap import HARNESS_VERSION
from memgap.engine.adapters import require
from memgap.engine.hf import KV_CACHES, OPTIONS
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.points.point import Point, Record, server_key

ARRIVAL = "static"
"""`load.arrival` of such a point: `batch_cap` requests are there at once, the next ones when all of them are done."""
IGNORED_LOAD = ("requests_per_slot", "min_requests", "max_requests", "requests")
"""What has become the number of requests."""
MOST_WARMUP = 64
"""Without a number of warm-up requests there is one batch of the same size, but of no more requests than this."""
LOAD_KEYS = ("warmup_requests", "temperature", "endpoint", "ignore_eos", *IGNORED_LOAD)


def is_static(record: Mapping[str, Any]) -> bool:
    """Whether a point's record is one of static batches."""
    return bool(record.get("load", {}).get("arrival") == ARRIVAL)


def static_session_name(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures static batches: one worker."""
    return f"{record['model']['name']}-{record['engine']['name']}-static-{server_key(record)}"


def static_point(
    arguments: Mapping[str, Any], engine: Record, model: Record, dataset: Record, requests: int, repeat: int, where: str
) -> Point:
    """Return the point of `arguments` (without lists): its batches are the dataset's first `requests`, `batch_cap` at
    a time in the dataset's order.

    Raises UserError where something is asked for that static batches do not have.
    """
    _check(arguments, engine, dataset, where)
    load, batch = arguments.get("load", {}), int(arguments["batch_cap"])
    record: Record = {
        "harness": HARNESS_VERSION,
        "engine": engine,
        "model": model,
        "server": {
            "args": options(arguments, model, dataset, where),
            "env": dict(arguments.get("env", {})),
            "replicas": 1,
            "mps": False,
        },
        "dataset": dataset,
        "load": {
            "arrival": ARRIVAL,
            "concurrency": batch,
            "requests": requests,
            "warmup_requests": int(load.get("warmup_requests", min(batch, MOST_WARMUP))),
        },
        "batch_cap": batch,
        "cap_side": "client",
        "repeat": repeat,
    }
    return Point.of(record, static_session_name(record))


def options(arguments: Mapping[str, Any], model: Mapping[str, Any], dataset: Mapping[str, Any], where: str) -> Record:
    """Return what `server` says of the worker, with defaults; raises UserError for what the worker does not know."""
    given = {name: value for name, value in arguments.get("server", {}).items() if value is not None}
    for name, value in given.items():
        if name not in OPTIONS:
            raise UserError(
                f"{where}: {name!r} is no option of static batches; known in `server` are {', '.join(sorted(OPTIONS))}."
            )
        if not isinstance(value, OPTIONS[name]) or isinstance(value, bool):
            raise UserError(f"{where}: server.{name} is {value!r}; give a {_kind(OPTIONS[name][0])}.")
        if isinstance(value, int) and value < 1:
            raise UserError(f"{where}: server.{name} is {value}; give at least 1.")
    found = {
        "kv-cache": "dynamic",
        "max-model-len": ModelArchitecture.from_dict(model["architecture"]).max_length,
        **given,
    }
    if found["kv-cache"] not in KV_CACHES:
        raise UserError(f"{where}: server.kv-cache is {found['kv-cache']!r}; use one of {', '.join(KV_CACHES)}.")
    return found


def _check(arguments: Mapping[str, Any], engine: Mapping[str, Any], dataset: Mapping[str, Any], where: str) -> None:
    if arguments.get("cap_side", "client") == "server":
        require(engine, "serves", "`cap_side: server`", where)
    for name in ("mps", "profile"):
        if arguments.get(name):
            require(engine, "shares_memory" if name == "mps" else "profiles", f"`{name}`", where)
    if int(arguments.get("replicas", 1)) > 1:
        require(engine, "shares_memory", "`replicas`", where)
    load = arguments.get("load", {})
    if load.get("arrival", "closed") != "closed":
        require(engine, "serves", f"load.arrival {load['arrival']}", where)
    if load.get("endpoint", "completions") != "completions":
        require(engine, "serves", f"load.endpoint {load['endpoint']}", where)
    for name in load:
        if name not in (*LOAD_KEYS, "arrival"):
            require(engine, "serves", f"load.{name}", where)
    if float(load.get("temperature", 0.0)) != 0.0 or load.get("ignore_eos") is False:
        raise UserError(f"{where}: static batches decode greedily to their given lengths; leave temperature at 0.")
    if dataset["kind"] in ("multi-turn", "trace", "texts"):
        require(engine, "serves", f"a dataset of kind {dataset['kind']}", where)


def _kind(one: type) -> str:
    return "whole number" if one is int else "name"
