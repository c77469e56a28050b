"""Results of other tools in, points of ours out."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from memgap.errors import UserError
from memgap.foreign import benchmark_report, vllm_bench
from memgap.foreign.files import as_csv, keep, read_foreign, rows_of
from memgap.store.atomic import write_text
from memgap.store.results import Results

WRITERS = {"vllm-bench": vllm_bench.write, "llm-d": benchmark_report.write}
FORMATS = (*WRITERS, "perfetto")


def import_files(files: Sequence[Path], sweep: str | None, results: Path) -> None:
    """Put the runs of other tools' files beside a sweep, for its next table; without one print them as CSV.

    Raises UserError for a file of no known format.
    """
    found = [one for path in files for one in read_foreign(path)]
    rows = rows_of(found, sweep or "")
    if sweep is None:
        print(as_csv(rows), end="")
        return
    path = keep(results, sweep, rows)
    counted = ", ".join(f"{number} of {tool}" for tool, number in Counter(one.tool for one in found).items())
    print(f"{counted}, in {path}; the next run draws them beside the sweep {sweep}.", file=sys.stderr)


def export_point(key: str, form: str, results: Path, out: Path | None) -> None:
    """Write a stored point in another tool's format, to standard output without `out`.

    Raises UserError for a point that is not in the store or is of a kind without requests.
    """
    point = Results(results).store.read(key)
    if point is None:
        raise UserError(f"no point {key} in {results}; `memgap list` names them.")
    if form == "perfetto":
        from memgap.foreign.perfetto import trace  # needs pandas

        document = trace(point, Results(results).points / key)
    elif point["status"] != "ok" or "load" not in point["record"]:
        raise UserError(f"the point {key} has no requests of a load to export: its status is {point['status']}.")
    else:
        document = WRITERS[form](point)
    text = json.dumps(document, indent=None if form == "perfetto" else 1, allow_nan=False) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
