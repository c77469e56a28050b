"""The command line: `python -m memgap list | doctor | where | unlock`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from memgap.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; returns 0, or 2 where the user has to mend something."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="memgap", description="Inspect a memgap study and this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser(
        "list", help="the points of the configuration, their state, and what a run would cost"
    )
    listing.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    listing.add_argument("--results", type=Path, default=Path("results"))
    listing.add_argument("--sweep", help="only this sweep")
    listing.add_argument("--format", choices=["text", "csv", "json"], default="text")
    listing.set_defaults(run=_list)

    doctor = commands.add_parser("doctor", help="what this machine has, and what each missing part would unlock")
    doctor.add_argument("--format", choices=["text", "json"], default="text")
    doctor.set_defaults(run=_doctor)

    where = commands.add_parser("where", help="where the results of the configuration are")
    where.add_argument("--configfile", type=Path, nargs="*", default=[])
    where.set_defaults(run=_where)

    unlock = commands.add_parser("unlock", help="remove Snakemake's lock where its driver is gone")
    unlock.add_argument("--directory", type=Path, default=Path())
    unlock.set_defaults(run=_unlock)
    return parser


def _list(options: argparse.Namespace) -> int:
    from memgap.listing import print_listing

    print_listing(options.configfile, options.results, options.sweep, options.format)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from memgap.doctor import print_findings

    print_findings(options.format)
    return 0


def _where(options: argparse.Namespace) -> int:
    from memgap.where import print_where

    print_where(options.configfile)
    return 0


def _unlock(options: argparse.Namespace) -> int:
    from memgap.unlock import remove_stale_lock

    remove_stale_lock(options.directory)
    return 0
