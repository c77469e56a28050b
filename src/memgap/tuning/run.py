"""Runs the races of a tuning. By hand: `python workflow/scripts/run_tuning.py --plan FILE --results FOLDER`.

A block measures every configuration that is still in the race once, on the same requests, in a random order. Each
measurement is a point of the store like any other, with the block as its repeat; what is stored is not measured again,
and a race that was stopped goes on where it was.
"""

from pathlib import Path
from typing import TextIO

from memgap.session.progress import Progress
from memgap.session.watch import StopWatch
from memgap.store.results import Results
from memgap.tuning.candidates import Subject
from memgap.tuning.contest import Contest
from memgap.tuning.outcome import Outcome, write_outcome
from memgap.tuning.plan import Plan, outcome_path, races


def run_race(plan: Plan, subject: Subject, tier: str, results: Path, watch: StopWatch, stream: TextIO) -> Outcome:
    """Run one race and write its outcome; returns it. Raises UserError and StoppedError; measured points stay."""
    Results(results).store.require_writable()
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
