"""Make tables: tabulate.py --config FILE --name GROUP --table NAME --read NAME=FILE... --write NAME=FILE..."""

import sys

from memgap.warm.client import start

if __name__ == "__main__":
    sys.exit(start("memgap.tables.command"))
