"""Does the advised configuration do what was predicted? The point that measures it, and predicted against measured.

The advice is taken from a sweep on a server with memory to spare; the advised server has the cap and the memory that
the advice names. It gets the same requests as the sweep's point at B_opt.

`python -m memgap.advisor.verify --configfile FILE --model NAME --plan FILE` writes the session plan of that point;
workflow/scripts/run_session.py measures it, also on a machine without Snakemake.
"""

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json, content_key
from memgap.config.files import read_config_files
from memgap.errors import DAMAGE, UserError
from memgap.script import run_script
from memgap.session.inputs import write_inputs
from memgap.stats.averaging import STEADY, WINDOW, averaging_of, value
from memgap.store.atomic import write_text
from memgap.study.plan import plan_of
from memgap.tables.documents import CLOSE, read_advice
from memgap.workflow import load_study

NOT_MEASURED = "Not measured: the recorded data have no run of the advised server."
Record = dict[str, Any]


def advised_record(record: Mapping[str, Any], advice: Mapping[str, Any]) -> Record:
    """Return the record of the sweep's point at B_opt with the advised server in place of its own."""
    advised = copy.deepcopy(dict(record))
    advised["server"]["args"] = dict(advice["server_args"])
    advised["repeat"] = 0
    return advised


def verification_plan(plan: Mapping[str, Any], advice: Mapping[str, Any]) -> Record | None:
    """Return what `_verification_plan` does; raises UserError for an advice that is not whole as well."""
    try:
        return _verification_plan(plan, advice)
    except DAMAGE as error:
        raise _not_whole(advice, error) from error


def _not_whole(advice: Mapping[str, Any], error: Exception) -> UserError:
    said = f"{type(error).__name__}: {error}"
    return UserError(f"the advice for {advice['model']} is not whole ({said}); let Snakemake make it again.")


def _verification_plan(plan: Mapping[str, Any], advice: Mapping[str, Any]) -> Record | None:
    """Return the session plan of the advised configuration; None where nothing was advised.

    `plan` has the model's points of the sweep with their sessions. Raises UserError where none of them is at B_opt.
    """
    if advice["b_opt"] is None:
        return None
    for point in plan["points"]:
        record = point["record"]
        if record["batch_cap"] == advice["b_opt"] and record["repeat"] == 0 and record["server"]["replicas"] == 1:
            advised = advised_record(record, advice)
            session = plan["sessions"][point["session"]]
            return {
                "session": f"verify-{plan['model']}-{content_key(advised, 8)}",
                "points": [{"key": content_key(advised), "record": advised}],
                "model_folder": session["model_folder"],
                "options": dict(session["options"]),
                "stop": [],
            }
    raise UserError(f"the advice for {plan['model']} names cap {advice['b_opt']}, which no point of its sweep has.")


def verification(advice: Mapping[str, Any], point: Mapping[str, Any] | None) -> Record:
    """Return what `_verification` does; raises UserError for an advice that is not whole."""
    try:
        return _verification(advice, point)
    except DAMAGE as error:
        raise _not_whole(advice, error) from error


def _verification(advice: Mapping[str, Any], point: Mapping[str, Any] | None) -> Record:
    """Return predicted against measured, what holds of the advice, and a sentence.

    `point` is the measured point of the advised server, None where it was not measured (recorded data may lack it).
    `holds` is None where nothing was advised or measured.
    """
    head: Record = {"model": advice["model"], "b_opt": advice["b_opt"]}
    if advice["b_opt"] is None:
        return {**head, "holds": None, "sentence": "Nothing was advised, so there is nothing to verify."}
    head["flags"] = advice["server_flags"]
    if point is None:
        return {**head, "holds": None, "sentence": NOT_MEASURED}
    head["point"] = point["key"]
    if point["status"] != "ok":
        message = point["error"]["message"]
        return {**head, "holds": False, "sentence": f"The advised server did not serve: {point['status']}: {message}"}
    summary, latency, bound = point["summary"], advice["rule"]["latency"], advice["rule"]["slo_ms"]
    averaging: Mapping[str, str] = advice.get("averaging", {})
    seen = {name: value(summary, name, averaging.get(name, WINDOW)) for name in advice["expected"]}
    rows = {
        name: _compared(float(predicted), seen[name])
        for name, predicted in advice["expected"].items()
        if name != "kv_cache_usage_max_fraction" and predicted is not None
    }
    used = summary.get("kv_cache_usage_max_fraction"), point["engine"].get("kv_pool_bytes")
    if advice["memory"].get("kv_at_b_opt_bytes") and all(value is not None for value in used):
        rows["kv_cache_used_max_bytes"] = _compared(float(advice["memory"]["kv_at_b_opt_bytes"]), used[0] * used[1])
    checks = {
        "keeps_the_slo": bound is None or (seen.get(latency) or float("inf")) <= bound,
        "no_preemption": not summary.get("preemptions"),
        "throughput_as_predicted": abs(rows["total_throughput_tok_s"]["ratio"] - 1) <= CLOSE,
        "believed": point["verdict"]["verdict"] != "invalid",
    }
    failed = [name.replace("_", " ") for name, kept in checks.items() if not kept]
    told = ", ".join(
        f"{name} {one['measured']:.5g} against {one['predicted']:.5g} ({one['ratio'] - 1:+.1%})"
        for name, one in rows.items()
    )
    end = "The advice holds." if not failed else f"It does not hold: not met is {', '.join(failed)}."
    if STEADY in averaging.values() and averaging_of(summary) == WINDOW:
        end += " Predicted is the steady part's, measured the whole window's: the run had no steady part."
    sentence = f"Run as advised: {told}. {end}"
    return {
        **head,
        "averaging": dict(averaging),
        "holds": not failed,
        "sentence": sentence,
        "checks": checks,
        "predicted_and_measured": rows,
    }


def _compared(predicted: float, measured: float | None) -> dict[str, float]:
    value = float("nan") if measured is None else float(measured)
    return {"predicted": predicted, "measured": value, "ratio": value / predicted if predicted else float("nan")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the plan that measures an advised server; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m memgap.advisor.verify", description=main.__doc__)
    parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    parser.add_argument("--model", required=True)
    parser.add_argument("--advice", type=Path, help="its advice; results/advisor/MODEL.yaml unless told")
    parser.add_argument("--plan", type=Path, required=True, help="the session plan to write")
    parser.add_argument("--results", type=Path, help="write model and dataset into this results folder as well")
    options = parser.parse_args(arguments)

    def write() -> None:
        plan = plan_of(load_study(read_config_files(options.configfile)), "verification", options.model)
        advice = read_advice([options.advice or Path(f"results/advisor/{options.model}.yaml")])
        if options.model not in advice:
            raise UserError(f"{options.advice} is the advice for {', '.join(advice)}, not for {options.model}.")
        session = verification_plan(plan, advice[options.model])
        if session is None:
            raise UserError(f"nothing was advised for {options.model}, so there is nothing to verify.")
        session["options"]["recorded"] = None
        write_text(options.plan, canonical_json(session) + "\n")
        if options.results is not None:
            write_inputs(session, options.results)

    return run_script(write)


if __name__ == "__main__":
    sys.exit(main())
