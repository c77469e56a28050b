"""Install the inference engine into .venv-engine: vLLM for an NVIDIA GPU where there is one, else its CPU build."""

import sys

from memgap.install.engine import main

if __name__ == "__main__":
    sys.exit(main())
