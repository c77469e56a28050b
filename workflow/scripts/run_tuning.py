"""Run the races of a tuning: `run_tuning.py --plan FILE --results FOLDER --log FILE`."""

import sys

from memgap.tuning.command import main

if __name__ == "__main__":
    sys.exit(main())
