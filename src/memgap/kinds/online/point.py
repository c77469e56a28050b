"""One point of a sweep of servers: its full record and the session that measures it."""

import math
from collections.abc import Mapping
from typing import Any

from memgap import HARNESS_VERSION
from memgap.config.numbers import ENDLESS
from memgap.engine.adapters import adapter_for, require
from memgap.engine.given import GivenFlags, without_none
from memgap.engine.reserved import check_flags, check_variables
from memgap.errors import UserError
from memgap.kinds.online.topology import topology
from memgap.kinds.static.point import static_point
from memgap.models.architecture import ModelArchitecture
from memgap.models.synthetic import encodes_text, speaks_words
from memgap.points.point import Point, Record, server_key

LOAD_DEFAULTS: Record = {
    "burstiness": 1.0,
    "endpoint": "completions",
    "temperature": 0.0,
    "ignore_eos": True,
    "request_timeout_s": 600.0,
    "seed": 0,
}
LEAST_WARMUP, MOST_WARMUP = 4, 64
"""Without a number of warm-up requests there are as many as the batch cap, within these bounds."""
SCALED = ("requests_per_slot", "min_requests", "max_requests", "warmup_requests")
"""What becomes a number of requests in the record."""
TIMED = ("seconds", "least_seconds", "interval_percent")
"""What bounds a load in time."""
LEAST_PER_SLOT, LEAST_TIMED = 4, 8
"""A load that is bounded in time has at least so many requests for each of the cap, and in all: with fewer its steady
part, which begins when each seat was taken twice, is too short."""
ARRIVAL_ONLY = {"rate_end_req_s": "ramp", "burst_requests": "bursts", "burst_every_s": "bursts"}
TOGETHER_FRACTION = 0.9
"""Share of the GPU's memory that replicas may take together."""


def make_point(
    arguments: Mapping[str, Any],
    engine: Record,
    model: Record,
    dataset: Record,
    repeat: int,
    where: str,
    queue: bool = False,
) -> Point:
    """Build the point of `arguments` (without lists) with the engine, model and dataset already resolved.

    With `queue` the server may take fewer requests at once than a client cap holds open; the others wait in the server.
    Raises UserError where arguments contradict one another; `where` names the sweep.
    """
    cap_side = str(arguments.get("cap_side", "client"))
    batch_cap = int(arguments["batch_cap"])
    replicas = int(arguments.get("replicas", 1))
    if adapter_for(engine["adapter"]).capabilities.static_batches:
        _environment(arguments, where)
        load = arguments.get("load", {})
        if timed := next((key for key in TIMED if key in load), None):
            raise UserError(f"{where}: load.{timed} is for servers; static batches have a number of requests.")
        requests = _requests(load, batch_cap, where)
        return static_point(arguments, engine, model, dataset, requests, repeat, where)
    _check_engine(arguments, engine, model, where)
    flags = _server_arguments(arguments, engine, cap_side, batch_cap, where, queue)
    server = {
        "args": share_memory(engine["adapter"], flags, replicas) if replicas > 1 else flags,
        "env": _environment(arguments, where),
        "replicas": replicas,
        "mps": bool(arguments.get("mps", False)),
    }
    if "topology" in arguments:
        server["topology"] = topology(arguments, engine, flags, where)
    if "profile" in arguments:
        moment = dict(arguments["profile"])
        kept = {"keep": True} if moment.pop("keep", False) else {}
        server["profile"] = {**{name: float(value) for name, value in moment.items()}, **kept}
    record: Record = {
        "harness": HARNESS_VERSION,
        "engine": engine,
        "model": model,
        "server": server,
        "dataset": dataset,
        "load": load_record(arguments.get("load", {}), cap_side, batch_cap, replicas, int(dataset["requests"]), where),
        "batch_cap": batch_cap,
        "cap_side": cap_side,
        "repeat": repeat,
    }
    _check_text(record, where)
    if (record["load"]["arrival"] == "trace") and dataset["kind"] != "trace":
        raise UserError(f"{where}: load.arrival 'trace' needs a dataset of kind trace, not {dataset['kind']}.")
    _check_turns(record, where)
    return Point.of(record, session_name(record))


def session_name(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures the point: readable, and unique for its server."""
    cap = f"cap{record['batch_cap']}" if record["cap_side"] == "server" else "warm"
    replicas, mps = record["server"]["replicas"], record["server"]["mps"]
    shared = (f"-x{replicas}" if replicas > 1 else "") + ("-mps" if mps else "")
    shared += f"-{record['server']['topology']['router']['kind']}" if "topology" in record["server"] else ""
    shared += "-profiled" if "profile" in record["server"] else ""
    name = f"{record['model']['name']}-{record['engine']['name']}-{cap}{shared}"
    return f"{name}-{server_key(record)}"


def _check_text(record: Record, where: str) -> None:
    model, asks = record["model"], _asks_for_text(record["load"])
    if record["dataset"]["kind"] == "texts" and speaks_words(model):
        raise UserError(
            f"{where}: datasets.{record['dataset']['name']} is text, of which the {model['weights']} model "
            f"{model['name']} knows no word; use weights that know some (package, hub or path), or another dataset."
        )
    if not asks or not speaks_words(model):
        return
    if not encodes_text(ModelArchitecture.from_dict(model["architecture"])):
        raise UserError(
            f"{where}: the synthetic tokenizer of {model['name']} reads no text, which {asks} needs; "
            "use completions with token ids, or a model of another family."
        )


def _asks_for_text(load: Mapping[str, Any]) -> str:
    """Return which setting of a load sends prompts as text; nothing where none does."""
    if load.get("endpoint") == "chat":
        return "load.endpoint chat"
    return "load.prompt_form text" if load.get("prompt_form") == "text" else ""


def _check_turns(record: Record, where: str) -> None:
    turns, requests = record["dataset"].get("turns"), record["load"]["requests"]
    if turns and requests % turns:
        raise UserError(
            f"{where}: load asks for {requests} requests, which is no multiple of the dataset's {turns} turns."
        )
    if turns and record["load"].get("client_processes", 1) > 1:
        raise UserError(f"{where}: conversations are sent by one client process; remove load.client_processes.")


def _environment(arguments: Mapping[str, Any], where: str) -> dict[str, str]:
    env = dict(arguments.get("env", {}))
    check_variables(env, where)
    return env


def _check_engine(arguments: Mapping[str, Any], engine: Record, model: Record, where: str) -> None:
    """Raise UserError where the engine's adapter cannot do what the arguments ask for."""
    require(engine, "serves", "a sweep", where)
    if int(arguments.get("replicas", 1)) > 1:
        require(engine, "shares_memory", "`replicas`", where)
        check_shareable(engine["adapter"], without_none(arguments.get("server", {})), where)
    if arguments.get("mps"):
        require(engine, "shares_memory", "`mps`", where)
    if "profile" in arguments:
        require(engine, "profiles", "`profile`", where)
    if (asks := _asks_for_text(arguments.get("load", {}))) and not speaks_words(model):
        require(engine, "detokenizes", asks, where)
    if not asks and not adapter_for(engine["adapter"]).takes_token_ids:
        raise UserError(
            f"{where}: engine {engine['name']!r} (adapter {engine['adapter']}) takes no token ids as a prompt; "
            "give `load: {prompt_form: text}`."
        )


def _server_arguments(
    arguments: Mapping[str, Any], engine: Record, cap_side: str, batch_cap: int, where: str, queue: bool
) -> Record:
    flags = without_none(arguments.get("server", {}))
    given = GivenFlags(engine["adapter"], flags, where)
    check_flags(flags, where, reserved=given.names.reserved)
    most = str(given.name("max_seqs"))
    if cap_side == "server":
        if "max_seqs" in given:
            raise UserError(f"{where}: with `cap_side: server` the flag {most} is batch_cap; remove it from `server`.")
        flags[most] = batch_cap
    elif given.whole("max_seqs", batch_cap) < batch_cap and not queue:
        raise UserError(f"{where}: batch_cap {batch_cap} is above the server's {most} {given.get('max_seqs')}.")
    return flags


def check_shareable(adapter: str, flags: Record, where: str) -> None:
    """Raise UserError where replicas could not divide the memory: a share of what is free would be another for each."""
    given = GivenFlags(adapter, flags, where)
    if given.names.fraction_is_of_free and "kv_tokens" not in given:
        raise UserError(
            f"{where}: {given.name('memory_fraction')} is a share of what is free when a server starts, which "
            f"`replicas` cannot divide; give {given.name('kv_tokens')}, the tokens of all replicas together."
        )


def share_memory(adapter: str, flags: Record, replicas: int) -> Record:
    """Return one replica's flags: the memory that all may take together, 0.9 of the GPU by default, is divided.

    A share of free memory stays as it is, beside a number of tokens that is divided.
    """
    given, shared = GivenFlags(adapter, flags), dict(flags)
    for meaning in ("kv_bytes", "kv_tokens"):
        if meaning in given:
            shared[str(given.name(meaning))] = int(given.get(meaning)) // replicas
    if given.names.fraction_is_of_free:
        return shared
    together = float(given.get("memory_fraction", TOGETHER_FRACTION))
    shared[str(given.name("memory_fraction"))] = math.floor(together / replicas * 1e4) / 1e4
    return shared


def load_record(
    given: Mapping[str, Any], cap_side: str, batch_cap: int, replicas: int, prompts: int, where: str
) -> Record:
    """Return the "load" part of a record from a configuration's; raises UserError where it contradicts itself.

    `prompts` is how many the dataset holds.
    """
    load = {**LOAD_DEFAULTS, **{key: value for key, value in given.items() if key not in (*SCALED, *TIMED)}}
    load["warmup_requests"] = given.get("warmup_requests", min(max(batch_cap, LEAST_WARMUP), MOST_WARMUP))
    load.setdefault("arrival", "closed" if cap_side == "client" else "all-at-once")
    if given.get("rate_req_s") == ENDLESS:
        if load["arrival"] not in ("constant", "poisson", "gamma"):
            raise UserError(f"{where}: load.rate_req_s .inf needs load.arrival constant, poisson or gamma.")
        given = {key: value for key, value in given.items() if key != "rate_req_s"}
        load |= {"arrival": "all-at-once", "rate_req_s": None, "burstiness": LOAD_DEFAULTS["burstiness"]}
    for key, usual in (("prompt_form", "token-ids"), ("stream", True), ("samples", 1)):
        if load.get(key) == usual:
            del load[key]  # what was always so is not part of a record
    if load.get("samples"):
        if load.get("stream") is False:
            raise UserError(f"{where}: load.samples needs a stream, which tells choices apart; remove load.stream.")
        if not load["temperature"]:
            raise UserError(f"{where}: load.samples needs load.temperature above 0; greedily there is one choice only.")
    open_loop = load["arrival"] in ("constant", "poisson", "gamma", "ramp")
    if open_loop and "rate_req_s" not in given:
        raise UserError(f"{where}: load.arrival {load['arrival']!r} needs load.rate_req_s.")
    if not open_loop and "rate_req_s" in given:
        raise UserError(
            f"{where}: load.rate_req_s has no meaning with load.arrival {load['arrival']!r}; "
            "use constant, poisson, gamma or ramp."
        )
    if cap_side == "client" and load["arrival"] != "closed":
        raise UserError(
            f"{where}: `cap_side: client` needs load.arrival closed, not {load['arrival']!r}; use `cap_side: server`."
        )
    load.setdefault("rate_req_s", None)
    load["concurrency"] = batch_cap * replicas if load["arrival"] == "closed" else None
    if "seconds" in given:
        load |= _timed(given, load["arrival"], batch_cap * replicas, prompts, where)
    else:
        _only_with_seconds(given, where)
        load["requests"] = _requests(given, batch_cap * replicas, where)
    if replicas > 1:
        load.setdefault("balance", "least-outstanding")
    else:
        load.pop("balance", None)
    for key, arrival in ARRIVAL_ONLY.items():
        if (key in given) != (load["arrival"] == arrival):
            lacks = "needs" if load["arrival"] == arrival else "has no use for"
            raise UserError(f"{where}: load.arrival {load['arrival']!r} {lacks} load.{key}.")
        if key in given and key != "burst_requests":
            load[key] = float(given[key])
    if "think_time_s" in given:
        load["think_time_s"] = float(given["think_time_s"])
    elif "think_time" in given:
        raise UserError(f"{where}: load.think_time needs load.think_time_s.")
    for key in ("burstiness", "temperature", "request_timeout_s"):
        load[key] = float(load[key])
    if load["rate_req_s"] is not None:
        load["rate_req_s"] = float(load["rate_req_s"])
    return load


def _only_with_seconds(given: Mapping[str, Any], where: str) -> None:
    for key in TIMED[1:]:
        if key in given:
            raise UserError(f"{where}: load.{key} needs load.seconds.")


def _timed(given: Mapping[str, Any], arrival: str, slots: int, prompts: int, where: str) -> Record:
    """Return what a load that is bounded in seconds has in its record: `requests` is the most of them."""
    if arrival != "closed":
        raise UserError(f"{where}: load.seconds is for a closed loop, not for load.arrival {arrival!r}.")
    for key in ("requests_per_slot", "max_requests"):
        if key in given:
            raise UserError(f"{where}: load.{key} has no meaning with load.seconds; give load.requests as the most.")
    if "least_seconds" in given and "interval_percent" not in given:
        raise UserError(f"{where}: load.least_seconds needs load.interval_percent.")
    most = int(given.get("requests", prompts))
    least = int(given.get("min_requests", min(max(LEAST_PER_SLOT * slots, LEAST_TIMED), most)))
    if least > most:
        raise UserError(f"{where}: load.min_requests {least} is above the {most} requests that there are at most.")
    timed: Record = {"seconds": float(given["seconds"]), "requests": most, "min_requests": least}
    if "least_seconds" in given:
        timed["least_seconds"] = float(given["least_seconds"])
    if "interval_percent" in given:
        timed["interval_fraction"] = float(given["interval_percent"]) / 100
    return timed


def _requests(given: Mapping[str, Any], slots: int, where: str) -> int:
    if ("requests" in given) == ("requests_per_slot" in given):
        raise UserError(f"{where}: give exactly one of load.requests, load.requests_per_slot and load.seconds.")
    if "requests" in given:
        return int(given["requests"])
    wanted = max(math.ceil(given["requests_per_slot"] * slots), int(given.get("min_requests", 1)))
    most = int(given.get("max_requests", wanted))
    if most < int(given.get("min_requests", 1)):
        raise UserError(f"{where}: load.max_requests {most} is below load.min_requests {given['min_requests']}.")
    return min(int(wanted), most)
