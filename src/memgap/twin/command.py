"""`memgap twin`, and what workflow/scripts/twin.py runs: calibrate from points, say how sure that is, answer."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from memgap.errors import UserError
from memgap.store.atomic import write_text
from memgap.store.points import PointStore
from memgap.twin.arguments import POINTS
from memgap.twin.calibrate import Calibration
from memgap.twin.predict import predict
from memgap.twin.question import Question, asked
from memgap.twin.report import answer, calibrated, document, observations, rows

SHOWN = (
    *("output_throughput_tok_s", "ttft_mean_ms", "ttft_p99_ms", "itl_mean_ms", "itl_p99_ms"),
    *("mean_running_reqs", "preemptions"),
)


def main(arguments: list[str] | None = None) -> int:
    """Write the calibration of one model and predicted beside measured; returns the exit status."""
    from memgap.script import run_script, script_parser
    from memgap.tables.points import read_table

    parser = script_parser("Calibrate the twin of one model's server.")
    parser.add_argument("--table", type=Path, nargs="+", required=True, help="tables of the sweeps")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args(arguments)

    def write() -> None:
        store = PointStore(Path("results/points"))
        tables = [read_table(one) for one in options.table]
        keys = dict.fromkeys(key for one in tables for key in one.loc[one["model"] == options.model, "key"])
        stored = [store.read(key) for key in keys if store.status(key) == "ok"]
        points, left_out = observations([one for one in stored if one is not None], options.model)
        calibration = calibrated(points, POINTS)
        _write(calibration, left_out, rows(calibration, points), options.out, options.csv)

    return run_script(write)


def answer_for(options: argparse.Namespace) -> int:
    """Calibrate and answer; raises UserError for what cannot be."""
    points, left_out = observations(list(_points(options)), options.model)
    calibration = calibrated(points, options.points)
    if options.out or options.table:
        _write(calibration, left_out, rows(calibration, points), options.out, options.table)
    if not (options.out or options.table) or options.cap or options.rate:
        _say(calibration, left_out)
        _print([answer(name, predict(calibration, one)) for name, one in _asked(options, calibration)], options.format)
    return 0


def _write(
    calibration: Calibration,
    left_out: Sequence[str],
    found: Sequence[Mapping[str, Any]],
    out: Path | None,
    table: Path | None,
) -> None:
    if out:
        said = document(calibration, left_out, found)
        write_text(out, yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=120))
    if table:
        write_text(table, _as_csv(found))


def _points(options: argparse.Namespace) -> Iterable[Mapping[str, Any]]:
    from memgap.recorded.files import all_points, study_folder
    from memgap.store.results import Results

    if options.recorded is not None:
        yield from all_points(study_folder(str(options.recorded)))
        return
    store = Results(options.results).store
    for key in store.stored_keys():
        point = store.read(key)
        if point is not None:
            yield point


def _asked(options: argparse.Namespace, calibration: Calibration) -> Iterable[tuple[str, Any]]:
    like = calibration.points[-1]
    for cap in options.cap:
        yield f"cap {cap}", asked(_question(options, cap=cap), like)
    for rate in options.rate:
        yield f"{rate:g} req/s", asked(_question(options, rate_req_s=rate), like)


def _question(options: argparse.Namespace, **load: Any) -> Question:
    return Question(
        arrival=options.arrival,
        burstiness=options.burstiness,
        requests=options.requests,
        prompt_tokens=_span(options.prompt),
        output_tokens=_span(options.output),
        prefix_tokens=options.prefix,
        prefixes=options.prefixes,
        max_num_seqs=options.max_seqs,
        max_batched_tokens=options.max_batched_tokens,
        chunked=options.chunked,
        kv_tokens=options.kv_tokens,
        kv_dtype=options.kv_dtype,
        **load,
    )


def _span(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise UserError(f"lengths are given as LOW-HIGH, such as 100-200, or as one number, not {text!r}.") from None


def _say(calibration: Calibration, left_out: Sequence[str]) -> None:
    print(f"# {calibration.points[0].model}, calibrated from:", file=sys.stderr)
    for one in calibration.points:
        missed = max(map(abs, calibration.misses[one.key].values()), default=0.0)
        print(f"#   {one.name}: missed by {missed:.1%} at most", file=sys.stderr)
    print(f"# between starts: {calibration.between_starts:.1%}; left out: {len(left_out)} points", file=sys.stderr)


def _print(found: Sequence[Mapping[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps(list(found), indent=2))
    elif form == "csv":
        print(_as_csv(found), end="")
    else:
        for row in found:
            said = [f"{name} {row[name]:g} [{row[f'{name}_low']:g}, {row[f'{name}_high']:g}]" for name in SHOWN]
            beyond = f"; extrapolates: {row['extrapolates']}" if row["extrapolates"] else ""
            print(f"{row['load']}: {', '.join(said)}{beyond}")


def _as_csv(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({name: f"{one:.6g}" if isinstance(one, float) else one for name, one in row.items()})
    return file.getvalue()
