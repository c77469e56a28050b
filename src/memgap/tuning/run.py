"""Runs the races of a tuning. By hand: `python workflow/scripts/run_tuning.py --plan FILE --results FOLDER`.

A block measures every configuration that is still in the race once, on the same requests, in a random order. Each
measurement is a point of the store like any other, with the block as its repeat; what is stored is not measured again,
and a race that was stopped goes on where it was.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, TextIO

from memgap.errors import UserError
from memgap.session.progress import Progress
from memgap.session.run import run_stoppable
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.study.plan import add_plan_arguments, requested_plan
from memgap.tuning.candidates import Subject
from memgap.tuning.contest import Contest
from memgap.tuning.outcome import Outcome, write_outcome
from memgap.tuning.plan import Plan, outcome_path, races


def run_race(plan: Plan, subject: Subject, tier: str, results: Path, watch: StopWatch, stream: TextIO) -> Outcome:
    """Run one race and write its outcome; returns it. Raises UserError and StoppedError; measured points stay."""
    PointStore(results / "points").require_writable()
    progress = Progress(f"{plan['tuning']} {subject[0]} {tier}", stream)
    outcome = Contest(plan, subject, tier, results, progress, watch).run()
    write_outcome(outcome_path(results, plan, subject, tier), outcome)
    return outcome


def run_tuning(plan: Plan, results: Path, watch: StopWatch, stream: TextIO) -> list[Outcome]:
    """Run all races of a plan, a model's tiers one after the other; where all of a tier failed, its later ones are
    left out.
    """
    outcomes: list[Outcome] = []
    hopeless: set[Subject] = set()
    for subject, tier in races(plan):
        if subject not in hopeless:
            outcomes.append(run_race(plan, subject, tier, results, watch, stream))
            if outcomes[-1]["winner"] is None:
                hopeless.add(subject)
    return outcomes


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


if __name__ == "__main__":
    sys.exit(main())
