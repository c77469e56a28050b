"""Install the inference engine into .venv-engine: vLLM for an NVIDIA GPU where one is found, its CPU build otherwise."""

import sys

from memgap.install.engine import main

if __name__ == "__main__":
    sys.exit(main())
