"""Locust's numbers against the load generator's: paired by repeat, with intervals, and what a difference comes from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.kinds.locust import locust_csv
from memgap.kinds.locust.point import LOCUST, OWN
from memgap.stats.intervals import mean_interval
from memgap.tables.entries import entries, series_of
from memgap.tables.requests import requests_of

SAME, REPORTED, RECOMPUTED, ENGINE, ADDED, CLIENT = (
    "same load",
    "as each reports it",
    "by one definition",
    "by the engine",
    "added outside the engine",
    "the client itself",
)
METRICS: tuple[tuple[str, str, str, str, str], ...] = (
    (SAME, "completed requests", "requests_completed", "requests_completed", "the same list of requests"),
    (SAME, "prompt tokens", "prompt_tokens", "prompt_tokens", "as the engine counts them"),
    (SAME, "output tokens", "output_tokens", "output_tokens", "as the engine counts them"),
    (SAME, "prefix-cache hits", "prefix_hit_fraction", "prefix_hit_fraction", "share of prompt tokens, by the engine"),
    (
        *(REPORTED, "requests/s", "locust_requests_per_s", "request_throughput_req_s"),
        "Locust: up to the last request's entry; the load generator: up to the last reply's end",
    ),
    (
        *(REPORTED, "response time, mean, ms", "locust_response_mean_ms", "e2e_mean_ms"),
        "Locust: up to the last byte; the load generator: up to the last token",
    ),
    (
        *(REPORTED, "response time, median, ms", "locust_response_p50_ms", "e2e_median_ms"),
        "Locust's CSV holds percentiles of times rounded to two digits",
    ),
    (REPORTED, "response time, p95, ms", "locust_response_p95_ms", "e2e_p95_ms", "two digits in Locust's CSV"),
    (REPORTED, "response time, p99, ms", "locust_response_p99_ms", "e2e_p99_ms", "two digits in Locust's CSV"),
    (
        *(REPORTED, "TTFT, mean, ms", "locust_ttft_mean_ms", "ttft_mean_ms"),
        "Locust: first event with text; the load generator: first event with a token id",
    ),
    (REPORTED, "TTFT, median, ms", "locust_ttft_p50_ms", "ttft_median_ms", "two digits in Locust's CSV"),
    (REPORTED, "TTFT, p95, ms", "locust_ttft_p95_ms", "ttft_p95_ms", "two digits in Locust's CSV"),
    (
        *(RECOMPUTED, "requests/s", "request_throughput_req_s", "request_throughput_req_s"),
        "a user comes back later where its client takes longer over each token",
    ),
    (RECOMPUTED, "output tokens/s", "output_throughput_tok_s", "output_throughput_tok_s", "as requests/s"),
    (
        *(RECOMPUTED, "end to end, mean, ms", "e2e_mean_ms", "e2e_mean_ms"),
        "from the send to the last token for both",
    ),
    (RECOMPUTED, "TTFT, mean, ms", "ttft_mean_ms", "ttft_mean_ms", "connecting and sending are the client's"),
    (RECOMPUTED, "TTFT, median, ms", "ttft_median_ms", "ttft_median_ms", "without the first request's cost"),
    (RECOMPUTED, "TPOT, mean, ms", "tpot_mean_ms", "tpot_mean_ms", "time per output token after the first"),
    (RECOMPUTED, "ITL, p99, ms", "itl_p99_ms", "itl_p99_ms", "a token waits while the client handles other users'"),
    (ENGINE, "TTFT, mean, ms", "server_ttft_mean_ms", "server_ttft_mean_ms", "a heavier client takes its cores"),
    (ENGINE, "end to end, mean, ms", "server_e2e_mean_ms", "server_e2e_mean_ms", "a heavier client takes its cores"),
    (ADDED, "TTFT, mean, ms", "added_ttft_ms", "added_ttft_ms", "client's mean less the engine's own of the same run"),
    (
        *(ADDED, "end to end, mean, ms", "added_e2e_ms", "added_e2e_ms"),
        "client's mean less the engine's own of the same run",
    ),
    (
        *(CLIENT, "CPU a token, µs", "client_cpu_us_per_token", "client_cpu_us_per_token"),
        "Locust parses while it measures; the load generator keeps bytes and parses after the run",
    ),
    (CLIENT, "CPU, cores", "client_cpu_cores", "client_cpu_cores", "of the one core that either can use"),
    (
        CLIENT,
        "loop lag, p99, ms",
        "client_loop_lag_p99_ms",
        "client_loop_lag_p99_ms",
        "how late a timer of 10 ms fires",
    ),
)
"""Group, metric, Locust's column, the load generator's column in the table of points, and what to know of it."""
ROUNDED = (
    "Locust keeps times rounded, to 1 ms below 100 ms and then to two digits, and takes one of them; "
    "otherwise interpolated between exact times"
)
COLUMNS = (
    *("experiment", "session", "group", "metric", "locust", "memgap", "difference", "difference_low"),
    *("difference_high", "interval_source", "pairs", "differs", "what_to_know"),
)
DEFINITION_COLUMNS = ("experiment", "session", "quantity", "locust_says", "otherwise", "difference", "runs", "why")


def comparison_table(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row a scenario and metric: means over the pairs of a repeat that one and the same server gave, the
    paired difference (Locust less load generator) with its 95 % interval, and whether it excludes 0.

    "differs" is "yes", "no" or, with fewer than two pairs, "unknown".
    """
    rows = []
    table = points.assign(
        added_ttft_ms=points["ttft_mean_ms"] - points["server_ttft_mean_ms"],
        added_e2e_ms=points["e2e_mean_ms"] - points["server_e2e_mean_ms"],
    )
    for (experiment, session), own in table.groupby(["experiment", "session"], sort=False):
        pairs = _pairs(own)
        for group, metric, theirs, ours, known in METRICS:
            one = pd.DataFrame(
                {"locust": pairs[f"{theirs}_{LOCUST}"], "memgap": pairs[f"{ours}_{OWN}"]}, dtype="float64"
            ).dropna()
            row: dict[str, Any] = {"experiment": experiment, "session": session, "group": group, "metric": metric}
            row |= {"pairs": len(one), "differs": "unknown", "what_to_know": known}
            if not one.empty:
                differences = (one["locust"] - one["memgap"]).tolist()
                row |= {"locust": one["locust"].mean(), "memgap": one["memgap"].mean()}
                row["difference"] = float(np.mean(differences))
                if found := mean_interval(differences, "pairs"):
                    row |= {"difference_low": found.low, "difference_high": found.high}
                    row |= {"interval_source": found.source, "differs": "no" if found.low <= 0 <= found.high else "yes"}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _pairs(own: pd.DataFrame) -> pd.DataFrame:
    """Return the points of a scenario side by side, by repeat and server; those that failed are left out."""
    good = own[own["status"] == "ok"]
    sides = [
        good[good["client"] == client].set_index(["repeat", "server_start"]).add_suffix(f"_{client}")
        for client in (LOCUST, OWN)
    ]
    return sides[0].join(sides[1], how="inner")


def definitions_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return what Locust reports of its own runs against what follows from the single requests of the same runs, as
    means over the runs of a scenario: definitions and rounding alone make these differences.
    """
    rows = []
    for entry in entries(plan, points):
        point = entry.point
        if point is None or entry.status != "ok" or point["record"]["loadtest"]["client"] != LOCUST:
            continue
        for quantity, said, otherwise, why in _definitions(point, entry.folder):
            rows.append((entry.experiment, entry.session, quantity, said, otherwise, why))
    columns = ["experiment", "session", "quantity", "locust_says", "otherwise", "why"]
    table = pd.DataFrame(rows, columns=columns).dropna()
    if table.empty:
        return pd.DataFrame(columns=list(DEFINITION_COLUMNS))
    keys = ["experiment", "session", "quantity", "why"]
    means = table.groupby(keys, sort=False).agg(
        locust_says=("locust_says", "mean"), otherwise=("otherwise", "mean"), runs=("otherwise", "size")
    )
    means = means.reset_index()
    means["difference"] = means["locust_says"] - means["otherwise"]
    return means[list(DEFINITION_COLUMNS)]


def _definitions(point: Mapping[str, Any], folder: Path) -> list[tuple[str, float, float, str]]:
    summary, users = point["summary"], point["record"]["loadtest"]["users"]
    said, first, both = (
        locust_csv.stats(folder, kind) for kind in (locust_csv.REQUESTS, locust_csv.TTFT, locust_csv.AGGREGATED)
    )
    requests = requests_of(folder)
    seen = series_of(folder, "locust_rows")
    requests, seen = requests[requests["status"] == "ok"], seen[seen["status"] == "ok"]
    whole_ms = (requests["end_s"] - requests["sent_s"]) * 1e3
    ttft_ms = (seen["first_text_s"] - seen["sent_s"]) * 1e3
    lines = locust_csv.history(folder, locust_csv.REQUESTS, float(point["window"]["start_unix_s"]))
    highest = max((line["Requests/s"] for line in lines if "Requests/s" in line), default=float("nan"))
    rate = summary["request_throughput_req_s"]
    found = [
        (
            *("response time where the Locust file does not correct it, mean, ms", seen["default_ms"].mean()),
            *(whole_ms.mean(), "of a streamed reply Locust's timer stops at the headers"),
        ),
        (
            *("response time, mean, ms", said.get("Average Response Time"), summary.get("e2e_mean_ms")),
            "to the last byte, against to the last token",
        ),
        *(
            (
                *(f"response time, {name}, ms", said.get(column), _percentile(whole_ms, share)),
                ROUNDED,
            )
            for name, column, share in (("median", "50%", 50), ("p95", "95%", 95), ("p99", "99%", 99))
        ),
        (
            *("TTFT, median, ms", first.get("50%"), _percentile(ttft_ms, 50)),
            ROUNDED,
        ),
        (
            *("TTFT by text, mean, ms", ttft_ms.mean(), ((seen["first_event_s"] - seen["sent_s"]) * 1e3).mean()),
            "first event with text, against first event with a token id",
        ),
        (
            *("TTFT, mean, ms", ttft_ms.mean(), ttft_ms[seen["index"] >= users].mean()),
            "otherwise without each user's first request, which connects",
        ),
        ("requests/s", said.get("Requests/s"), rate, "otherwise completed requests by the window"),
        (
            *("requests/s of the row Aggregated", both.get("Requests/s"), rate),
            "a TTFT that is reported as an entry of its own counts once more in Aggregated",
        ),
        (
            *("highest requests/s in the history", highest, rate),
            "Locust's current rate is over ten seconds that end two seconds ago: a short run shows little or nothing",
        ),
    ]
    return [(name, float(a), float(b), why) for name, a, b, why in found if a is not None and b is not None]


def _percentile(values: Any, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")
