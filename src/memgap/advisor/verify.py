"""Does the advised configuration do what was predicted? The point that measures it, and predicted against measured.

The advice is taken from a sweep on a server with memory to spare; the advised server has the cap and the memory that
the advice names. It gets the same requests as the sweep's point at B_opt.
"""

import copy
from collections.abc import Mapping
from typing import Any

from memgap.canonical import content_key
from memgap.errors import UserError

CLOSE = 0.05
"""Throughput and latency within this share of the prediction count as predicted."""
Record = dict[str, Any]


def advised_record(record: Mapping[str, Any], advice: Mapping[str, Any]) -> Record:
    """Return the record of the sweep's point at B_opt with the advised server in place of its own."""
    advised = copy.deepcopy(dict(record))
    advised["server"]["args"] = dict(advice["server_args"])
    advised["repeat"] = 0
    return advised


def verification_plan(plan: Mapping[str, Any], advice: Mapping[str, Any]) -> Record | None:
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
                "options": session["options"],
                "stop": [],
            }
    raise UserError(f"the advice for {plan['model']} names cap {advice['b_opt']}, which no point of its sweep has.")


def verification(advice: Mapping[str, Any], point: Mapping[str, Any] | None) -> Record:
    """Return predicted against measured, what holds of the advice, and a sentence."""
    head: Record = {"model": advice["model"], "b_opt": advice["b_opt"]}
    if point is None:
        return {**head, "holds": None, "sentence": "Nothing was advised, so there is nothing to verify."}
    head["flags"] = advice["server_flags"]
    head["point"] = point["key"]
    if point["status"] != "ok":
        message = point["error"]["message"]
        return {**head, "holds": False, "sentence": f"The advised server did not serve: {point['status']}: {message}"}
    summary, latency, bound = point["summary"], advice["rule"]["latency"], advice["rule"]["slo_ms"]
    rows = {
        name: _compared(float(predicted), summary.get(name))
        for name, predicted in advice["expected"].items()
        if name != "kv_cache_usage_max_fraction" and predicted is not None
    }
    used = summary.get("kv_cache_usage_max_fraction"), point["engine"].get("kv_pool_bytes")
    if advice["memory"].get("kv_at_b_opt_bytes") and all(value is not None for value in used):
        rows["kv_cache_used_max_bytes"] = _compared(float(advice["memory"]["kv_at_b_opt_bytes"]), used[0] * used[1])
    checks = {
        "keeps_the_slo": bound is None or summary.get(latency, float("inf")) <= bound,
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
    sentence = f"Run as advised: {told}. {end}"
    return {**head, "holds": not failed, "sentence": sentence, "checks": checks, "predicted_and_measured": rows}


def _compared(predicted: float, measured: float | None) -> dict[str, float]:
    value = float("nan") if measured is None else float(measured)
    return {"predicted": predicted, "measured": value, "ratio": value / predicted if predicted else float("nan")}
