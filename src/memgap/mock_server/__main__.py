"""Entry point: `python -m memgap.mock_server --port P --model NAME`."""

import sys

from memgap.errors import UserError
from memgap.mock_server.options import parse_options
from memgap.mock_server.server import run_server

if __name__ == "__main__":
    try:
        sys.exit(run_server(parse_options()))
    except UserError as error:
        print(f"memgap.mock_server: {error}", file=sys.stderr)
        sys.exit(2)
