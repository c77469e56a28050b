"""Install Locust, the second load generator, into .venv-locust."""

import sys

from memgap.install.locust import main

if __name__ == "__main__":
    sys.exit(main())
