"""Calibrate the twin of one model: twin.py --table TABLE... --model NAME --out FILE --csv FILE."""

import sys

from memgap.warm.client import start

if __name__ == "__main__":
    sys.exit(start("memgap.twin.command"))
