"""What goes with the package: the workflow's rules and scripts, locks, profiles, pages, the quickstart."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "workflow").is_dir() else _HERE.parents[2]
"""The folder that holds them: this one where a wheel was installed (`setup.py` puts them there), else the checkout."""
SNAKEFILE = ROOT / "Snakefile"
SCRIPTS = ROOT / "workflow" / "scripts"
LOCKS = ROOT / "envs"
PROFILES = ROOT / "profiles"
QUICKSTART = ROOT / "config" / "config.yaml"
DOCS = ROOT / "docs"
