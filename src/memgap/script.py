"""What the entry points in workflow/scripts share: the plan arguments and how mistakes are told."""

import argparse
import sys
from collections.abc import Callable

from memgap.errors import UserError
from memgap.redact import redact
from memgap.store.atomic import keep_others_from_writing
from memgap.study.plan import add_plan_arguments


def script_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--plan FILE` and `--config FILE --name NAME`."""
    parser = argparse.ArgumentParser(description=description)
    add_plan_arguments(parser)
    return parser


def run_script(job: Callable[[], None]) -> int:
    """Run `job`; returns 0, or 2 after one line on standard error where the user has to mend something."""
    try:
        keep_others_from_writing()
        job()
    except UserError as error:
        print(f"memgap: {redact(str(error))}", file=sys.stderr)
        return 2
    return 0
