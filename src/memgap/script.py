"""What the entry points in workflow/scripts share: the plan arguments, named files, and how mistakes are told."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memgap.config.load import known
from memgap.declared import DOCUMENTS, MODELS, reads_of
from memgap.errors import UserError
from memgap.redact import redact
from memgap.store.atomic import keep_others_from_writing
from memgap.study.plan import add_plan_arguments, models_of, requested_plan

if TYPE_CHECKING:
    from memgap.tables.inputs import Inputs


def script_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--plan FILE` and `--config FILE --name NAME`."""
    parser = argparse.ArgumentParser(description=description)
    add_plan_arguments(parser)
    return parser


def read_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser `--read NAME=FILE...`, the files that a figure or table is made from."""
    parser.add_argument(
        "--read",
        nargs="*",
        default=[],
        metavar="NAME=FILE",
        help="what it is made from, such as sweep.points=results/tables/small.parquet",
    )


def pairs(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the file of each NAME=FILE; raises UserError for a text without both."""
    for text in given:
        name, sign, file = text.partition("=")
        if not (name and sign and file):
            raise UserError(f"{text!r} is not NAME=FILE.")
        yield name, file


def read_inputs(options: argparse.Namespace, reads: Sequence[str], plan: str = "") -> "Inputs":
    """Return the inputs that a command line with `read_options` names, for a declaration's `reads` and kind of plan.

    Raises UserError for a file that is named as none of them, and where a table that has to be there has none.
    """
    from memgap.tables.inputs import Inputs  # needs pandas, which an engine's environment may lack

    entries = {read.name: read for read in reads_of(tuple(reads)) if read.name != MODELS}
    given: dict[str, list[Path]] = {}
    for name, file in pairs(options.read):
        known(name, entries, "input", "--read")
        given.setdefault(name, []).append(Path(file))
    for name, read in entries.items():
        if name not in given and not read.optional and read.table not in DOCUMENTS:
            raise UserError(f"--read {name}=FILE is missing.")
    return Inputs(
        given,
        plan=requested_plan(options, plan) if plan else None,
        points=getattr(options, "results", Path("results")) / "points",
        paper_reference=getattr(options, "paper_reference", None),
        architectures=models_of(options.config) if MODELS in reads else None,
    )


def run_script(job: Callable[[], None]) -> int:
    """Run `job`; returns 0, or 2 after one line on standard error where the user has to mend something."""
    try:
        keep_others_from_writing()
        job()
    except UserError as error:
        print(f"memgap: {redact(str(error))}", file=sys.stderr)
        return 2
    return 0
