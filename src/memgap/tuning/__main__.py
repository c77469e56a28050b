"""The command line of tunings: `python -m memgap.tuning convert | check | plan`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from memgap.canonical import canonical_json
from memgap.config.files import read_config_files
from memgap.config.load import known
from memgap.engine.flags import flag_list
from memgap.errors import UserError
from memgap.points.point import Record
from memgap.script import run_script
from memgap.store.atomic import write_text
from memgap.tuning.candidates import Builder, deviations, point_of
from memgap.tuning.convert import Options, convert
from memgap.tuning.engine_flags import engine_flags
from memgap.tuning.validate import check_flags
from memgap.workflow import load_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns 0, or 2 where the user has to mend something."""
    parser = argparse.ArgumentParser(prog="python -m memgap.tuning", description="Tunings of server configurations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    conversion = commands.add_parser("convert", help="make a tuning of a file with fixed_args and experiments")
    conversion.add_argument("file", type=Path)
    conversion.add_argument("--out", type=Path, help="configuration to write; on standard output unless told")
    conversion.add_argument("--shape", nargs="*", default=[], metavar="HUB_ID=FILE", help="config.json of a model")
    conversion.add_argument("--revision", nargs="*", default=[], metavar="HUB_ID=COMMIT")
    conversion.add_argument("--document-tokens", type=int, default=1000, help="mean length of a document")
    conversion.add_argument(
        "--follow-winners",
        action="store_true",
        help="drop from later tiers the values of what an earlier tier varies, which were copied from it by hand",
    )
    conversion.set_defaults(run=_convert)
    for name, run, text in (
        ("check", _check, "list the configurations of each tier, and check their flags with the engine"),
        ("plan", _plan, "write the plan of a tuning, to run it on a machine without Snakemake"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
        command.add_argument("--name", help="the tuning; the only one unless told")
        command.set_defaults(run=run)
        if name == "plan":
            command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    return run_script(lambda: options.run(options))


def _convert(options: argparse.Namespace) -> None:
    shapes = {name: Path(path) for name, path in _pairs(options.shape, "--shape").items()}
    revisions = _pairs(options.revision, "--revision")
    made = convert(
        options.file, Options(shapes, revisions, options.document_tokens, follow_winners=options.follow_winners)
    )
    text = yaml.safe_dump(made.config, sort_keys=False, width=110)
    if options.out is None:
        print(text, end="")
    else:
        write_text(options.out, text)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    for one in given:
        if "=" not in one:
            raise UserError(f"{option} {one!r}: write it as NAME=VALUE.")
    return {one.partition("=")[0]: one.partition("=")[2] for one in given}


def _tuning(options: argparse.Namespace) -> Record:
    tunings = load_study(read_config_files(options.configfile)).tunings
    if options.name is None and len(tunings) == 1:
        return next(iter(tunings.values()))
    known(options.name or "", tunings, "tuning", "--name")
    return tunings[options.name]


def _plan(options: argparse.Namespace) -> None:
    write_text(options.out, canonical_json(_tuning(options)) + "\n")


def _check(options: argparse.Namespace) -> None:
    plan = _tuning(options)
    asked: dict[str, Any] = {}
    for model, dataset in plan["subjects"]:
        builder = Builder(plan, (model, dataset))
        defaults = builder.defaults()
        flags = " ".join(flag_list(defaults[0].record["server"]["args"])) or "the engine's own"
        print(f"{model} on {dataset}: default {flags}")
        for number, tier in enumerate(plan["tiers"]):
            base = defaults[0].arguments if number else None
            found = builder.tier(number, base)
            print(f"  tier {tier['name']}: {len(found)} configurations{'' if not number else ' over the default'}")
            for one in found:
                name = one.record["engine"]["name"]
                if name not in asked:
                    folder = Path("results/tuning/flags")
                    asked[name] = engine_flags(one.record, plan["options"]["python"], folder)
                if asked[name] is not None:
                    where = f"config: tuning.{plan['tuning']}, {one.experiment}"
                    check_flags(one.record["server"]["args"], asked[name], one.record["engine"]["package"], where)
                told = ", ".join(deviations(one.arguments, defaults[0].arguments)) or "the default"
                print(f"    {one.experiment}: {told}  ({point_of(one, 0).session})")
    if any(flags is None for flags in asked.values()):
        print("the engine did not tell its flags here, so they were not checked")


if __name__ == "__main__":
    sys.exit(main())
