"""Advises on one model; what workflow/scripts/advise.py runs."""

from pathlib import Path

from memgap.advisor.report import advice_for, write_advice
from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan
from memgap.tables.pages import advice_page
from memgap.tables.points import read_table


def main(arguments: list[str] | None = None) -> int:
    """Write the advice as YAML and as a page; returns the exit status."""
    parser = script_parser("Advise on the batch cap of one model.")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--html", type=Path, required=True)
    options = parser.parse_args(arguments)

    def advise() -> None:
        settings = requested_plan(options, "advisor")
        advice = advice_for(read_table(options.table), options.model, settings)
        write_text(options.out, write_advice(advice))
        write_text(options.html, advice_page(advice))

    return run_script(advise)
