"""Run labs: `run_lab.py --plan FILE... --results FOLDER --log FILE`."""

import sys

from memgap.labs.command import main

if __name__ == "__main__":
    sys.exit(main())
