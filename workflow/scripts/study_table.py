"""Table IV or the claims: study_table.py tab04|claims --replication TABLE --online TABLE --csv FILE --html FILE."""

import argparse
import sys
from pathlib import Path

from memgap.advisor.verify import read_verifications
from memgap.collect.table import read_table
from memgap.figures.plot import read_advice
from memgap.figures.provenance import provenance_line
from memgap.pages import study_page
from memgap.script import run_script
from memgap.store.atomic import write_text
from memgap.tables import tab04
from memgap.tables.claims import Study, claims_table

TITLES = {"tab04": "Table IV: replication on one GPU", "claims": "What the paper claims against what was measured"}


def main(arguments: list[str] | None = None) -> int:
    """Write the table as CSV and as a page; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make a table of the study.")
    parser.add_argument("kind", choices=sorted(TITLES))
    parser.add_argument("--replication", type=Path, required=True, help="table of the sweep of replicas")
    parser.add_argument("--online", type=Path, required=True, help="table of the sweep of one server")
    parser.add_argument("--advice", type=Path, nargs="*", default=[], help="advice files, for the claims")
    parser.add_argument(
        "--verified", type=Path, nargs="*", default=[], help="verifications of the advice, for the claims"
    )
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--html", type=Path, required=True)
    options = parser.parse_args(arguments)

    def table() -> None:
        replication, online = read_table(options.replication), read_table(options.online)
        if options.kind == "tab04":
            found = tab04.table(replication, online)
        else:
            found = claims_table(
                Study(online, replication, read_advice(options.advice), read_verifications(options.verified))
            )
        write_text(options.csv, found.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        write_text(options.html, study_page(TITLES[options.kind], found, provenance_line(replication)))

    return run_script(table)


if __name__ == "__main__":
    sys.exit(main())
