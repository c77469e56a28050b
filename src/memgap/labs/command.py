"""Runs labs. By hand: `python workflow/scripts/run_lab.py --plan FILE... --results FOLDER`."""

import argparse
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.config.load import known
from memgap.errors import UserError
from memgap.labs.run import run_lab
from memgap.session.run import run_stoppable
from memgap.session.watch import StopWatch
from memgap.study.plan import requested_plan

WHOLE = {"lab", "cells", "capacities", "claims", "options", "blocks", "servers"}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status of `run_stoppable`."""
    parser = argparse.ArgumentParser(description="Run labs, one after another.")
    parser.add_argument("--plan", type=Path, nargs="*", default=[], help="plans, see `python -m memgap.labs plan`")
    parser.add_argument("--config", type=Path, help="checked configuration as JSON, with --name")
    parser.add_argument("--name", help="name of the lab in the configuration")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--log", type=Path, default=None)
    parser.add_argument("--engine", nargs="*", default=[], help="only arms of these engines; all unless told")
    parser.add_argument("--block", type=int, nargs="*", default=[], help="only these blocks, from 1; all unless told")
    parser.add_argument("--seconds", type=float, help="stop after so long; what was measured is kept")
    options = parser.parse_args(argv)

    def job(watch: StopWatch, stream: Any) -> None:
        if options.seconds is not None:
            over = threading.Timer(options.seconds, watch.stop, (f"{options.seconds:g} s are over",))
            over.daemon = True
            over.start()
        plans = [_read(path) for path in options.plan]
        if not plans:
            plans = [requested_plan(argparse.Namespace(plan=None, config=options.config, name=options.name), "lab")]
        wrong = []
        for plan in plans:
            try:
                run_lab(part_of(plan, options.engine, options.block), options.results, watch, stream)
            except UserError as error:  # the other labs go on
                wrong.append(f"lab {plan['lab']}: {error}" if len(plans) > 1 else str(error))
        if wrong:
            raise UserError("; ".join(wrong))

    return run_stoppable(job, options.results, options.log)


def part_of(plan: Mapping[str, Any], engines: Sequence[str], blocks: Sequence[int]) -> dict[str, Any]:
    """Return a plan with the arms of some engines and some of the blocks, numbered from 1, for a run in several parts.

    Raises UserError for an engine or a block that the lab has not.
    """
    cells, own = plan["cells"], {cell["record"]["engine"]["name"] for cell in plan["cells"]}
    for name in engines:
        known(name, own, "engine", f"lab {plan['lab']}")
    if wrong := [block for block in blocks if not 1 <= block <= plan["blocks"]]:
        raise UserError(f"--block: lab {plan['lab']} has blocks 1 to {plan['blocks']}, not {wrong[0]}.")
    kept = [cell for cell in cells if not engines or cell["record"]["engine"]["name"] in engines]
    return {**plan, "cells": kept, "only_blocks": [block - 1 for block in blocks] or list(range(plan["blocks"]))}


def _read(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no plan of a lab ({error}); make it with `python -m memgap.labs plan`.") from error
    if not (isinstance(plan, dict) and plan.keys() >= WHOLE):
        raise UserError(f"{path}: no plan of a lab; make it with `python -m memgap.labs plan`.")
    return plan
