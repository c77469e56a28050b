"""Runs the races of a tuning. By hand: `python workflow/scripts/run_tuning.py --plan FILE --results FOLDER`."""

import argparse
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.session.run import run_stoppable
from memgap.session.watch import StopWatch
from memgap.study.plan import add_plan_arguments, requested_plan
from memgap.tuning.run import run_race, run_tuning


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status of `run_stoppable`."""
    parser = argparse.ArgumentParser(description="Run the races of a tuning, all of them or one.")
    add_plan_arguments(parser)
    parser.add_argument("--model", help="with --dataset and --tier: run this race only")
    parser.add_argument("--dataset")
    parser.add_argument("--tier")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args(argv)

    def job(watch: StopWatch, stream: Any) -> None:
        plan = requested_plan(options, "tuning")
        if not {"tuning", "settings", "tiers", "subjects"} <= plan.keys():
            raise UserError("not a plan of a tuning: make it with `python -m memgap.tuning plan`.")
        if options.tier is None:
            run_tuning(plan, options.results, watch, stream)
        else:
            run_race(plan, (options.model, options.dataset), options.tier, options.results, watch, stream)

    return run_stoppable(job, options.results, options.log)
