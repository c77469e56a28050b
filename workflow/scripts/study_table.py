"""A table of the study: study_table.py KIND --csv FILE --html FILE [--md FILE --tex FILE] and what it is made from.

tab01 to tab03: tables of an offline study (--offline, --classes, --counters, --gpu). tab04: --replication and --online.
claims: those two, --advice, and an offline study's tables where there is one.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from memgap.advisor.advice import read_advice
from memgap.advisor.verify import read_verifications
from memgap.errors import UserError
from memgap.figures.offline_inputs import OfflineTables, read_offline
from memgap.figures.provenance import provenance_line
from memgap.script import run_script
from memgap.tables import tab01, tab02, tab03, tab04
from memgap.tables.claims import Study, claims_table
from memgap.tables.files import write_forms
from memgap.tables.points import read_table

TITLES = {
    "tab01": "Table I: prefill and decode at MAX",
    "tab02": "Table II: performance and traffic of attention kernels",
    "tab03": "Table III: cache hit rates of attention kernels",
    "tab04": "Table IV: replication on one GPU",
    "claims": "What the paper claims against what was measured",
}
OFFLINE: dict[str, Callable[[OfflineTables], pd.DataFrame]] = {
    "tab01": tab01.table,
    "tab02": tab02.table,
    "tab03": tab03.table,
}


def main(arguments: list[str] | None = None) -> int:
    """Write the table in its forms; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make a table of the study.")
    parser.add_argument("kind", choices=sorted(TITLES))
    parser.add_argument("--replication", type=Path, help="table of the sweep of replicas")
    parser.add_argument("--online", type=Path, help="table of the sweep of one server")
    parser.add_argument("--advice", type=Path, nargs="*", default=[], help="advice files, for the claims")
    for kind in ("offline", "classes", "counters", "gpu"):
        parser.add_argument(f"--{kind}", type=Path, help=f"an offline study's {kind} table")
    parser.add_argument(
        "--verified", type=Path, nargs="*", default=[], help="verifications of the advice, for the claims"
    )
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--html", type=Path, required=True)
    parser.add_argument("--md", type=Path)
    parser.add_argument("--tex", type=Path)
    options = parser.parse_args(arguments)

    def table() -> None:
        found, source = _made(options)
        write_forms(found, TITLES[options.kind], source, options.csv, options.html, options.md, options.tex)

    return run_script(table)


def _made(options: argparse.Namespace) -> tuple[pd.DataFrame, str]:
    """Return the table and the line that says where its numbers come from."""
    for needed in ("offline",) if options.kind in OFFLINE else ("replication", "online"):
        if getattr(options, needed) is None:
            raise UserError(f"the table {options.kind} needs --{needed}.")
    offline = read_offline({kind: getattr(options, kind) for kind in ("offline", "classes", "counters", "gpu")})
    if options.kind in OFFLINE:
        return OFFLINE[options.kind](offline), provenance_line(offline.points)
    replication, online = read_table(options.replication), read_table(options.online)
    if options.kind == "tab04":
        return tab04.table(replication, online), provenance_line(replication)
    advice, verified = read_advice(options.advice), read_verifications(options.verified)
    claims = claims_table(Study(online, replication, advice, verified, offline))
    apart = [provenance_line(replication), *([provenance_line(offline.points)] if len(offline.points) else [])]
    return claims, "; offline: ".join(apart)


if __name__ == "__main__":
    sys.exit(main())
