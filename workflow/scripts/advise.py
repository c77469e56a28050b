"""Advise on one model: advise.py --plan SETTINGS.json --table TABLE --model NAME --out FILE --html FILE."""

import sys

from memgap.warm.client import start

if __name__ == "__main__":
    sys.exit(start("memgap.advisor.command"))
