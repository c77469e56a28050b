"""Draw a figure: draw.py --config FILE --figure NAME --read NAME=FILE... --pdf FILE --png FILE --csv FILE."""

import sys

from memgap.warm.client import start

if __name__ == "__main__":
    sys.exit(start("memgap.figures.command"))
