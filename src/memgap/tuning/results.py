"""The tables of a tuning: one row a configuration in each race, and a row a model that says what won."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.declared.tables import TableSpec
from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.stats.averaging import WINDOW, averaging_of, of_window, value
from memgap.store.points import PointStore
from memgap.tables.columns import Columns
from memgap.tables.forms import Content
from memgap.tables.inputs import Inputs
from memgap.tuning.failures import failure_class
from memgap.tuning.formulas import clock_text, cost, per_gpu, price
from memgap.tuning.outcome import Outcome, read_outcome
from memgap.tuning.plan import Plan, outcome_path
from memgap.tuning.speculation import is_synthetic, segment, speculative_config
from memgap.tuning.summary import optimization_summary

ORIGINAL = (
    "experiment",
    "prompt_template_name",
    "model",
    "tp",
    "pp",
    "dp",
    "mns",
    "mnbt",
    "gmu",
    "bs",
    "kvc",
    "spec",
    "quant",
    "gpus_for_1b_tokens_per_hour",
    "node_days_to_process_1b_tokens",
    "gpu_days_to_process_1b_tokens",
    "input_tps_per_gpu",
    "output_tps_per_gpu",
    "tokens_input_per_sec",
    "tokens_output_per_sec",
    "avg_running_reqs",
    "avg_waiting_reqs",
    "avg_gpu_kvc_usage",
    "avg_prefix_cache_hit_rate",
    "prompt_tokens_total",
    "completion_tokens_total",
    "mean_input_tokens",
    "mean_output_tokens",
    "successful_requests",
    "e2e_time",
    "inference_time",
    "e2e_per_1k_per_gpu",
    "inference_per_1k_per_gpu",
    "path",
    "comment",
)
"""Columns of the table that this one can stand in for, in their order."""
LATENCIES = tuple(
    f"{metric}_{statistic}_ms" for metric in ("ttft", "tpot", "itl", "e2e") for statistic in ("mean", "median", "p99")
)
ADDED = (
    "tier",
    "label",
    "state",
    "is_default",
    "is_reference",
    "gpus",
    "blocks",
    "objective_gain",
    "objective_gain_low",
    "objective_gain_high",
    "sign_flip_p",
    "output_tps_per_gpu_sd",
    "failed_requests",
    *LATENCIES,
    "gpu_power_mean_w",
    "energy_j",
    "energy_per_output_token_j",
    "usd_per_million_output_tokens",
    "usd_per_million_tokens",
    "preemptions",
    "verdict_suspect_blocks",
    "start_s",
    "synthetic_acceptance",
    "server_args",
    "engine",
    "device",
    "date_utc",
    "source",
    "servers",
    "finished",
    "averaging",
    "of_window",
)
MEANINGS: Mapping[str, str] = {
    "tp": "tensor_parallel",
    "pp": "pipeline_parallel",
    "dp": "data_parallel",
    "mns": "max_seqs",
    "mnbt": "max_batched_tokens",
    "gmu": "memory_fraction",
    "bs": "block_tokens",
    "kvc": "kv_dtype",
}
"""Short name -> what the flag means."""


TABLE = TableSpec(
    name="tuning",
    title="Tables of a tuning",
    of="tuning",
    plan="tuning",
    writes={
        "results": "results/tuning/{group}/benchmarking_results.csv",
        "summary": "results/tuning/{group}/optimization_summary.csv",
        "measurements": "results/tuning/{group}/measurements.csv",
        "experiments": "results/tuning/{group}/experiments/",
    },
    wanted=("summary",),
    shown=("results", "summary", "measurements"),
    category="Tuning",
    caption="""
A tuning: races of server configurations on the same requests, in blocks of random order. Gains are over the reference
of a race, with intervals that hold for all comparisons and looks at once. See docs/tuning.md.
""",
)
READ = {
    "results": Columns("a table of a tuning", (*ORIGINAL, *ADDED), needed=("tier", "label", "state", "objective_gain")),
}


def read_outcomes(plan: Plan, results: Path) -> list[Outcome]:
    """Return the outcomes of all races that were run, in their order; raises UserError where there is none."""
    found = []
    for model, dataset in plan["subjects"]:
        for tier in plan["tiers"]:
            path = outcome_path(results, plan, (model, dataset), tier["name"])
            if path.exists():
                found.append(read_outcome(path))
    if not found:
        raise UserError(f"tuning {plan['tuning']}: no race of it was run; run it before its tables are made.")
    return found


def configuration_rows(plan: Plan, outcomes: Iterable[Outcome], store: PointStore) -> pd.DataFrame:
    """Return a row for each configuration of each race: means over its blocks, where it stands, why it left."""
    rows = []
    for outcome in outcomes:
        rows += [_row(plan, outcome, arm, store) for arm in outcome["arms"]]
        for one in outcome["refused"]:
            rows.append({**_head(outcome, one["experiment"]), "state": "refused", "comment": one["reason"]})
    return pd.DataFrame(rows, columns=[*ORIGINAL, *ADDED])


def _head(outcome: Outcome, experiment: str) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "prompt_template_name": outcome["dataset"],
        "model": outcome["model"],
        "tier": outcome["tier"],
    }


def _row(plan: Plan, outcome: Outcome, arm: Mapping[str, Any], store: PointStore) -> dict[str, Any]:
    stored = [point for point in map(store.read, arm["points"]) if point is not None]
    good = [point for point in stored if failure_class(point) is None]
    row = {
        **_head(outcome, ";".join([arm["experiment"], *arm["also"]])),
        **_settings(_flags(plan, arm), arm["server_args"], good),
        "label": arm["label"],
        "state": arm["state"],
        "is_default": arm["is_default"],
        "is_reference": arm["is_reference"],
        "gpus": arm["gpus"],
        "blocks": len(good),
        "objective_gain": arm["gain_fraction"],
        "objective_gain_low": arm["gain_low_fraction"],
        "objective_gain_high": arm["gain_high_fraction"],
        "sign_flip_p": arm["sign_flip_p"],
        "servers": outcome["servers"],
        "finished": outcome["finished"],
        "source": _source(stored),
        "path": f"results/points/{arm['points'][0]}" if arm["points"] else None,
        "comment": arm["reason"] or None,
    }
    if not good:
        return row
    averaging = plan["settings"]["averaging"]
    summaries = [point["summary"] for point in good]
    runs = [per_gpu(summary, arm["gpus"], averaging) for summary in summaries]
    means = {name: statistics.fmean(run[name] for run in runs if name in run) for name in runs[0]}
    seconds = _mean(good, "duration_s") or 0.0
    start_s = statistics.fmean(float(point["engine"].get("start_s") or 0.0) for point in good)
    done = _mean(good, "requests_completed") or 1.0
    per_1k = 1000 * arm["gpus"] / done
    queries, hits = _mean(good, "prefix_cache_queries"), _mean(good, "prefix_cache_hits")
    tps = [run["output_tps_per_gpu"] for run in runs]
    row |= {name: value for name, value in means.items() if name in ORIGINAL}
    row |= {
        "avg_running_reqs": _mean(good, "mean_running_reqs", averaging),
        "avg_waiting_reqs": _mean(good, "mean_waiting_reqs"),
        "avg_gpu_kvc_usage": _times(100, _mean(good, "kv_cache_usage_mean_fraction")),
        "avg_prefix_cache_hit_rate": 100 * hits / queries if queries and hits is not None else None,
        "prompt_tokens_total": _mean(good, "prompt_tokens"),
        "completion_tokens_total": _mean(good, "output_tokens"),
        "successful_requests": done,
        "e2e_time": seconds + start_s,
        "inference_time": seconds,
        "e2e_per_1k_per_gpu": clock_text((seconds + start_s) * per_1k),
        "inference_per_1k_per_gpu": clock_text(seconds * per_1k),
        "output_tps_per_gpu_sd": statistics.stdev(tps) if len(tps) > 1 else None,
        "failed_requests": _mean(good, "requests_failed"),
        **{name: _mean(good, name, averaging) for name in LATENCIES},
        **{name: _mean(good, name) for name in ("gpu_power_mean_w", "energy_j", "energy_per_output_token_j")},
        **cost(means, price(good[0]["hardware"], plan["analysis"]["usd_per_gpu_hour"])),
        "preemptions": _mean(good, "preemptions"),
        "verdict_suspect_blocks": sum(point["verdict"]["verdict"] == "suspect" for point in good),
        "start_s": start_s,
        "engine": f"{good[0]['record']['engine']['package']} {good[0]['record']['engine']['version']}",
        "device": good[0]["hardware"]["gpu_name"] or "CPU",
        "date_utc": good[-1]["provenance"]["date_utc"],
        "averaging": " and ".join(sorted({averaging_of(one, averaging) for one in summaries})),
        "of_window": "; ".join(sorted({named for one in summaries if (named := of_window(one, averaging))})) or None,
    }
    return row


def _source(stored: Sequence[Mapping[str, Any]]) -> str | None:
    """Return whether the points were "measured" here or are "recorded" data, and both where some of either are."""
    return " and ".join(sorted({"recorded" if "recorded" in point else "measured" for point in stored})) or None


def _flags(plan: Plan, arm: Mapping[str, Any]) -> GivenFlags:
    (engine,) = plan["engines"].values()
    return GivenFlags(engine["adapter"], arm["server_args"])


def _settings(flags: GivenFlags, args: Mapping[str, Any], good: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the short columns of the flags: as given, else as the running server reports them."""
    resolved = good[0]["engine"].get("resolved") or {} if good else {}
    found = {}
    for short, meaning in MEANINGS.items():
        value = flags.get(meaning)
        if value is None and (place := flags.names.told.get(meaning)) is not None:
            value = (resolved.get(place[0]) or {}).get(place[1])
        found[short] = value
    for short in ("tp", "pp", "dp"):
        found[short] = found[short] or 1
    speculative = speculative_config(flags)
    found |= {
        "spec": segment(speculative),
        "quant": flags.get("quantization", "none"),
        "synthetic_acceptance": bool(speculative and is_synthetic(speculative)),
        "server_args": canonical_json(dict(args)),
    }
    return found


def _mean(points: Sequence[Mapping[str, Any]], name: str, averaging: str = WINDOW) -> float | None:
    values = [found for point in points if (found := value(point["summary"], name, averaging)) is not None]
    return statistics.fmean(values) if values else None


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def measurement_rows(outcomes: Iterable[Outcome], store: PointStore, averaging: str) -> pd.DataFrame:
    """Return a row for each measurement of a race: the block it was made in and its numbers."""
    rows = []
    for outcome in outcomes:
        for arm in outcome["arms"]:
            for point in (one for one in map(store.read, arm["points"]) if one is not None):
                summary = point["summary"]
                rows.append(
                    {
                        "model": outcome["model"],
                        "dataset": outcome["dataset"],
                        "tier": outcome["tier"],
                        "label": arm["label"],
                        "block": point["record"]["repeat"] % 100 + 1,
                        "key": point["key"],
                        "status": point["status"],
                        "verdict": point.get("verdict", {}).get("verdict"),
                        "output_tps_per_gpu": per_gpu(summary, arm["gpus"], averaging).get("output_tps_per_gpu"),
                        "tpot_mean_ms": value(summary, "tpot_mean_ms", averaging),
                        "e2e_mean_ms": value(summary, "e2e_mean_ms", averaging),
                        "duration_s": summary.get("duration_s"),
                        "start_s": point["engine"].get("start_s"),
                        "date_utc": point["provenance"]["date_utc"],
                    }
                )
    return pd.DataFrame(rows)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the tables of the tuning of the inputs' plan; raises UserError where no race of it was run."""
    plan = inputs.plan
    outcomes, store = read_outcomes(plan, inputs.points.parent), PointStore(inputs.points)
    table = configuration_rows(plan, outcomes, store)
    experiments = dict.fromkeys(one["name"] for tier in plan["tiers"] for one in tier["experiments"])
    return {
        "results": table,
        "summary": optimization_summary(plan, outcomes, table),
        "measurements": measurement_rows(outcomes, store, plan["settings"]["averaging"]),
        "experiments": {
            name: table[[name in str(names).split(";") for names in table["experiment"]]] for name in experiments
        },
    }
