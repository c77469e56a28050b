"""`memgap capacity`: the highest rate at which a server keeps an SLO for 99 % of the requests, measured on that server.

The plan is that of a session, as results/plans has it; its stored points calibrate the twin, which says where to look.
Each window is a point of its own in the store, so a search that was stopped finds its windows again.
"""

import argparse
import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.points.plan import SessionPlan
from memgap.points.point import Point
from memgap.session.progress import Progress
from memgap.session.run import Session, check_plan, run_stoppable
from memgap.session.watch import StopWatch
from memgap.store.atomic import write_text
from memgap.store.results import Results
from memgap.study.plan import requested_plan
from memgap.twin.arguments import POINTS
from memgap.twin.capacity import ERROR, SHARE, Capacity, Expectation, Window, search
from memgap.twin.report import calibrated, observations

LATENCIES = ("ttft", "tpot", "e2e")


def main(options: argparse.Namespace) -> int:
    """Search and write the answer; returns the exit status of a session."""

    def job(watch: StopWatch, stream: Any) -> None:
        plan = requested_plan(options, "session")
        check_plan(plan)
        session = Session(cast(SessionPlan, plan), options.results, Progress(plan["session"], stream), watch)
        found = _searched(session, plan, options)
        model = plan["points"][0]["record"]["model"]["name"]
        path = options.out or Results(options.results).folder / "twin" / f"{model}.capacity.yaml"
        said = document(found, read_slo(options.slo), model)
        write_text(path, yaml.safe_dump(said, sort_keys=False, allow_unicode=True))
        print(said["sentence"], file=stream)

    return run_stoppable(job, options.results, None)


def read_slo(given: Sequence[str]) -> dict[str, float]:
    """Return an SLO from texts such as "ttft=200"; raises UserError for another one."""
    found = {}
    for text in given:
        name, _, bound = text.partition("=")
        try:
            found[name] = float(bound)
        except ValueError:
            found[name] = 0.0
        if name not in LATENCIES or not found[name] > 0:
            raise UserError(f"--slo {text}: give LATENCY=MS with {', '.join(LATENCIES)}, such as ttft=200.")
    return found


def document(found: Capacity, slo: Mapping[str, float], model: str) -> dict[str, Any]:
    """Return the answer as it is written."""
    bounds = ", ".join(f"{name} <= {bound:g} ms" for name, bound in slo.items())
    sentence = (
        f"{model} keeps {bounds} for {SHARE:.0%} of the requests up to {found.load:.3g} req/s "
        f"({found.low:.3g} to {found.high:.3g} with {1 - ERROR:.0%}), after {len(found.windows)} windows and "
        f"{found.seconds:.0f} s{'' if found.found else '; the windows ran out before the interval was narrow enough'}."
    )
    windows = [{"rate_req_s": one.load, "good": one.good, "sent": one.sent, "s": one.seconds} for one in found.windows]
    return {
        "model": model,
        "slo_ms": dict(slo),
        "share": SHARE,
        "error": ERROR,
        "rate_req_s": found.load,
        "low_req_s": found.low,
        "high_req_s": found.high,
        "narrow_enough": found.found,
        "server_s": found.seconds,
        "sentence": sentence,
        "windows": windows,
    }


def _searched(session: Session, plan: Mapping[str, Any], options: argparse.Namespace) -> Capacity:
    template, slo = plan["points"][0]["record"], read_slo(options.slo)
    stored = [point for key in (one["key"] for one in plan["points"]) if (point := session.store.read(key))]
    points, left_out = observations(stored, template["model"]["name"])
    if len(points) < 2:
        raise UserError(
            f"the plan {plan['session']} has {len(points)} measured points that the twin can take "
            f"({'; '.join(left_out) or 'measure its caps first'}), but the search needs two."
        )
    requests = min(options.requests, int(template["dataset"]["requests"]))
    shape = Expectation(calibrated(points, POINTS), points[-1], slo, requests).shape()
    numbers = iter(range(1, 1 << 30))
    with session.held(), session.bench() as bench:
        bench.look_around(template)

        def measure(rate: float) -> Window:
            number = next(numbers)
            record = window_record(template, rate, requests, number)
            point = Point.of(record, plan["session"])
            if session.store.status(point.key) != "ok":
                entry: Any = {"key": point.key, "record": record}
                with session.lease(f"point {point.key}"):
                    bench.measure(entry, f"window {number}, {rate:.3g} req/s", [entry])
            document = session.store.read(point.key)
            if document is None or document["status"] != "ok":
                raise UserError(
                    f"window {number} at {rate:.3g} req/s could not be measured: {document and document['error']}."
                )
            good = sum(_kept(Results(options.results).points / point.key / "requests.csv.gz", slo))
            return Window(rate, good, requests, float(document["summary"]["duration_s"]))

        return search(measure, shape, resolution=options.resolution, most_windows=options.most_windows)


def window_record(template: Mapping[str, Any], rate_req_s: float, requests: int, seed: int) -> dict[str, Any]:
    """Return the record of a window: the template's server and dataset under Poisson arrivals of their own seed."""
    timed = ("seconds", "least_seconds", "interval_fraction", "min_requests", "think_time", "think_time_s")
    load = {name: value for name, value in template["load"].items() if name not in timed}
    load |= {"arrival": "poisson", "rate_req_s": float(f"{rate_req_s:.4g}"), "concurrency": None}
    load |= {"requests": requests, "seed": seed}
    seats = GivenFlags.of(template).whole("max_seqs", int(template["batch_cap"]))
    return {**template, "load": load, "batch_cap": seats, "cap_side": "server", "repeat": 0}


def _kept(path: Path, slo: Mapping[str, float]) -> Iterator[bool]:
    """Yield for each request whether it kept the SLO, times from when it was due."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] != "ok":
                yield False
                continue
            due, first, last = (float(row[name]) for name in ("intended_s", "first_token_s", "last_token_s"))
            tokens = int(float(row["output_tokens_seen"] or 0))
            times = {"ttft": first - due, "e2e": last - due, "tpot": (last - first) / max(tokens - 1, 1)}
            yield all(1e3 * times[name] <= bound for name, bound in slo.items())
