"""The command line of labs: `python -m memgap.labs plan | check | metrics | pages`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from memgap.canonical import canonical_json
from memgap.config.files import read_config_files
from memgap.config.load import known
from memgap.labs.metric import GROUPS, column_names
from memgap.labs.pages import lab_pages
from memgap.labs.points import cells_of, known_points, place_of
from memgap.labs.shared import shared_plan
from memgap.points.point import Record
from memgap.script import run_script
from memgap.store.atomic import write_text
from memgap.tuning.servers import IN_TURN, TOGETHER
from memgap.workflow import load_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns 0, or 2 where the user has to mend something."""
    parser = argparse.ArgumentParser(prog="python -m memgap.labs", description="Labs: arms, blocks, claims.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("plan", _plan, "write plans, one file a lab, to run them on a machine without Snakemake"),
        ("check", _check, "list the points of each lab, and its claims"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
        command.add_argument("--name", nargs="*", default=[], help="labs; all unless told")
        command.set_defaults(run=run)
        if name == "plan":
            command.add_argument("--out", type=Path, required=True, help="folder for NAME.json")
            command.add_argument(
                "--as", dest="joined", metavar="NAME", help="one plan of all of them, that share servers"
            )
    metrics = commands.add_parser("metrics", help="list what claims and figures can name")
    metrics.set_defaults(run=_metrics)
    pages = commands.add_parser("pages", help="write the made parts of the labs' pages in a folder")
    pages.add_argument("folder", type=Path)
    pages.set_defaults(run=_pages)
    options = parser.parse_args(arguments)
    return run_script(lambda: options.run(options))


def _labs(options: argparse.Namespace) -> dict[str, Record]:
    labs = plans_of(options.configfile)
    for name in options.name:
        known(name, labs, "lab", "--name")
    return {name: labs[name] for name in options.name or labs}


def plans_of(files: list[Path]) -> dict[str, Record]:
    """Return the plans of the labs of configuration files by name."""
    return load_study(read_config_files(files)).labs


def _pages(options: argparse.Namespace) -> None:
    for page, text in lab_pages(options.folder, plans_of).items():
        page.write_text(text, encoding="utf-8")


def _plan(options: argparse.Namespace) -> None:
    labs = _labs(options)
    if options.joined:
        labs = {options.joined: shared_plan(options.joined, list(labs.values()))}
    for name, plan in labs.items():
        write_text(options.out / f"{name}.json", canonical_json(plan) + "\n")
        print(options.out / f"{name}.json")


def _metrics(options: argparse.Namespace) -> None:
    for kind in ("serving", "offline", GROUPS):
        print(f"{kind}: {' '.join(sorted(column_names(kind)))}")


def starts(plan: Record) -> int:
    """Return how often a run that finds nothing stored starts a server or worker at most."""
    rates = {place_of(one["at"]): 1.0 for one in plan["capacities"]}
    cells = [one for one in cells_of(plan, 0, rates) if one.arm not in plan["left_out"]]
    if plan["servers"] == IN_TURN:
        return int(plan["blocks"]) * len({(one.arm, one.point.session) for one in cells})
    return (1 if plan["servers"] == TOGETHER else int(plan["blocks"])) * len({one.point.session for one in cells})


def _check(options: argparse.Namespace) -> None:
    for name, plan in _labs(options).items():
        points = list(known_points(plan, Path("results")))
        print(f"{name}: {plan['question']}")
        known_now = f"{len(points)} points known" + (", more after the capacity" if plan["capacities"] else "")
        print(f"  {len(plan['arms'])} arms, {plan['blocks']} blocks, {known_now}, {starts(plan)} starts at most")
        for arm, reason in plan["left_out"].items():
            print(f"  {arm} is left out: {reason}")
        for one, claim in plan["claims"].items():
            print(f"  {one} {claim['say']}")


if __name__ == "__main__":
    sys.exit(main())
