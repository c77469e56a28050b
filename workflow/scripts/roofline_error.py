"""The roofline against measured points: roofline_error.py --config CONFIG --table TABLE... --csv FILE ..."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from memgap.figures.offline_inputs import read_offline
from memgap.figures.provenance import provenance_line
from memgap.script import run_script
from memgap.store.atomic import write_text
from memgap.study.plan import models_of
from memgap.tables.pages import study_page
from memgap.tables.points import read_table
from memgap.tables.roofline_error import compare_steps, error_summary, offline_points, online_points


def main(arguments: list[str] | None = None) -> int:
    """Write the error of every point, its summary and the summary as a page; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare the roofline's prediction with measured points.")
    parser.add_argument("--config", type=Path, required=True, help="checked configuration as JSON")
    parser.add_argument("--table", type=Path, nargs="+", required=True, help="tables of sweeps")
    parser.add_argument("--offline", type=Path, nargs="*", default=[], help="tables of offline studies' points")
    for form in ("csv", "summary", "html"):
        parser.add_argument(f"--{form}", type=Path, required=True)
    options = parser.parse_args(arguments)

    def compare() -> None:
        architectures = models_of(options.config)
        table = pd.concat([read_table(path) for path in options.table], ignore_index=True).drop_duplicates("key")
        offline = [offline_points(read_offline({"offline": path}).points) for path in options.offline]
        errors = compare_steps(pd.concat([online_points(table), *offline], ignore_index=True), architectures)
        summary = error_summary(errors)
        for path, found in ((options.csv, errors), (options.summary, summary)):
            write_text(path, found.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        title = "Measured step times by the roofline's prediction"
        write_text(options.html, study_page(title, summary, provenance_line(table)))

    return run_script(compare)


if __name__ == "__main__":
    sys.exit(main())
