"""One offline point: a batch of fixed size, its lengths, an engine in process, and the profiler that watches it."""

from collections.abc import Mapping, Sequence
from typing import Any

from memgap import HARNESS_VERSION
from memgap.engine.given import GivenFlags, without_none
from memgap.engine.reserved import check_flags, check_variables
from memgap.errors import UserError
from memgap.points.point import Point, Record, server_key
from memgap.points.resolve import Resolved

KIND = "offline"
REQUIRED = ("model", "batch")
LENGTHS = ("prompt_tokens", "output_tokens")
DEFAULTS: Record = {"detokenize": True, "temperature": 0.0, "warmup_steps": 2, "seed": 0}
WINDOW_STEPS = 2
NCU_METRICS = ["roofline", "stalls", "memory"]
OWN_ARGUMENTS = {
    "ncu": ("csv", "page", "log-file", "metrics", "print-units", "nvtx", "nvtx-include", "export", "import", "o", "i"),
    "nsys": ("output", "o", "force-overwrite", "f", "export"),
}
"""Options of the profilers that memgap sets itself, or that would keep it from reading the result."""


def make_offline_point(found: Resolved, repeat: int) -> Point:
    """Build the point of resolved arguments; raises UserError where they contradict one another."""
    arguments, where, given_flags = found.arguments, found.where, found.flags
    flags = without_none(arguments.get("server", {}))
    env = dict(arguments.get("env", {}))
    names = given_flags.names
    check_flags(flags, where, "flag", "has no use for an engine in process", names.reserved)
    if "api_servers" in given_flags:
        raise UserError(f"{where}: the flag {names.api_servers!r} has no use for an engine in process; remove it.")
    check_variables(env, where)
    batch = int(arguments["batch"])
    seats = given_flags.whole("max_seqs", batch)
    if seats < batch:
        raise UserError(f"{where}: batch {batch} is above the engine's {names.max_seqs} {seats}.")
    given = arguments.get("profiler")
    asked = _asked(found, batch)
    record: Record = {
        "harness": HARNESS_VERSION,
        "kind": KIND,
        "engine": found.engine,
        "model": found.model,
        "server": {"args": flags, "env": env, "profiler": _profiler(given, given_flags, where)},
        "batch": batch,
        **asked,
        **{name: arguments.get(name, default) for name, default in DEFAULTS.items()},
        "repeat": repeat,
    }
    record["temperature"] = float(record["temperature"])
    if arguments.get("outputs", "final") != "final":
        record["outputs"] = arguments["outputs"]
    if given is not None:
        record["window"] = _window(given, int(asked["output_tokens"]), where)
    return Point.of(record, offline_session_name(record))


def _asked(found: Resolved, batch: int) -> Record:
    """Return what the requests of a batch are: all of one length, or the first prompts of a dataset."""
    arguments, where = found.arguments, found.where
    given = [name for name in LENGTHS if name in arguments]
    if "dataset" not in arguments:
        if len(given) < len(LENGTHS):
            missing = next(one for one in LENGTHS if one not in given)
            raise UserError(f"{where}: no `{missing}` is given, nor a `dataset`.")
        prompt, output = (int(arguments[name]) for name in LENGTHS)
        longest = found.flags.longest(found.model)
        if prompt + output > longest:
            bound = found.flags.names.max_model_len
            raise UserError(f"{where}: {prompt} prompt and {output} output tokens are above {bound} {longest}.")
        return {"prompt_tokens": prompt, "output_tokens": output}
    dataset = found.dataset
    if given or arguments.get("profiler"):
        one = given[0] if given else "profiler"
        raise UserError(f"{where}: with `dataset` lengths are its own and no step is like another; remove `{one}`.")
    if dataset["kind"] in ("trace", "multi-turn"):
        raise UserError(f"{where}: a batch takes single prompts, which a dataset of kind {dataset['kind']} has not.")
    if batch > dataset["requests"]:
        raise UserError(f"{where}: batch {batch} is above the {dataset['requests']} requests of {dataset['name']}.")
    return {"dataset": dataset}


def offline_session_name(record: Mapping[str, Any]) -> str:
    """Return the name of the session that measures an offline point: one engine, one profiler."""
    profiler = record["server"]["profiler"]
    watched = f"-{profiler['source']}" if profiler else ""
    return f"{record['model']['name']}-{record['engine']['name']}-offline{watched}-{server_key(record)}"


def mode_of(record: Mapping[str, Any]) -> str:
    """Return what the flags ask for: "eager", "compiled" (without CUDA graphs) or "graphs"."""
    given = GivenFlags.of(record)
    compilation = given.get("compilation", {})
    without = isinstance(compilation, Mapping) and str(compilation.get("cudagraph_mode", "")).upper() == "NONE"
    if given.get("eager"):
        return "eager"
    return "compiled" if without else "graphs"


def _profiler(given: Mapping[str, Any] | None, flags: GivenFlags, where: str) -> Record | None:
    if given is None:
        return None
    if flags.get("async_scheduling") is not False:
        raise UserError(
            f"{where}: a profiler needs `server: {{{flags.name('async_scheduling')}: false}}`, or kernels land in the "
            "next step."
        )
    source = given["source"]
    profiler: Record = {"source": source}
    if source == "ncu":
        profiler["metrics"] = list(given.get("metrics", NCU_METRICS))
        profiler["kernels"] = given.get("kernels")
    elif "metrics" in given or "kernels" in given:
        raise UserError(f"{where}: profiler.metrics and profiler.kernels are ncu's; remove them for {source}.")
    if given.get("keep"):
        if source != "torch":
            raise UserError(f"{where}: profiler.keep is for torch's traces; remove it for {source}.")
        profiler["keep"] = True
    if "args" in given:
        profiler["args"] = _profiler_arguments(given["args"], source, where)
    return profiler


def _profiler_arguments(given: Sequence[str], source: str, where: str) -> list[str]:
    if source not in OWN_ARGUMENTS:
        raise UserError(f"{where}: profiler.args are for ncu and nsys; remove them for {source}.")
    for argument in given:
        name = argument.partition("=")[0].lstrip("-")
        if name in OWN_ARGUMENTS[source]:
            raise UserError(f"{where}: profiler.args: {argument!r} is set by memgap itself; remove it.")
    return list(given)


def _window(given: Mapping[str, Any], output: int, where: str) -> Record:
    steps = int(given.get("decode_steps", 1 if given["source"] == "ncu" else WINDOW_STEPS))
    first = given.get("decode_from")
    decode_from = int(first) if first is not None else max((output - 1 - steps) // 2, 0)
    if decode_from + steps > output - 1:
        raise UserError(
            f"{where}: {output} output tokens have {output - 1} decode steps, "
            f"but profiler wants steps {decode_from} to {decode_from + steps - 1}."
        )
    return {
        "prefill_steps": int(given.get("prefill_steps", 0 if given["source"] == "ncu" else 1)),
        "decode_from": decode_from,
        "decode_steps": steps,
    }
