"""Puts what lies beside the source into a wheel, where `memgap.shipped` looks for it; the rest is pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("Snakefile", "workflow", "envs", "profiles", "docs", "config/config.yaml")
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "site.yaml", ".*")


class BuildWithShipped(build_py):
    """Builds the package and copies the files into it; an editable install finds them in the checkout."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        shipped = Path(self.build_lib, "memgap", "shipped")
        for name in SHIPPED:
            source, target = Path(__file__).parent / name, shipped / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.rmtree(target, ignore_errors=True)  # of an earlier build
                shutil.copytree(source, target, ignore=NOT_SHIPPED)
            else:
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithShipped})
