"""Runs a session. By hand: `python workflow/scripts/run_session.py --plan results/plans/NAME.json`."""

import argparse
from pathlib import Path

from memgap.session.run import run_sessions
from memgap.study.plan import add_plan_arguments, requested_plan


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status of `run_sessions`."""
    parser = argparse.ArgumentParser(description="Measure the points of a session.")
    add_plan_arguments(parser)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args(argv)
    return run_sessions(lambda measure: measure(requested_plan(options, "session")), options.results, options.log)
