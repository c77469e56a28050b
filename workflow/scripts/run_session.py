"""Measure the points of a session: `run_session.py --plan FILE --results FOLDER --log FILE`."""

import sys

from memgap.session.command import main

if __name__ == "__main__":
    sys.exit(main())
