"""Makes a folder with a study in it."""

import shutil
from pathlib import Path

from memgap.commands.where import program
from memgap.config.files import DEFAULT
from memgap.errors import UserError
from memgap.shipped import DOCS, PROFILES, QUICKSTART
from memgap.store.atomic import write_text


def make_study(folder: Path) -> None:
    """Write the quickstart's configuration and the profiles into a folder, and say what to do there.

    Raises UserError where the folder has a study already, or cannot be written.
    """
    config = folder / DEFAULT
    if config.exists():
        raise UserError(f"{config} is there already; name another folder, or go on with `memgap run` in this one.")
    try:
        for profile in ("default", "slurm"):
            target = folder / PROFILES.name / profile
            shutil.copytree(PROFILES / profile, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("site.yaml"))
        text = QUICKSTART.read_text(encoding="utf-8")
        write_text(config, text.replace("docs/config.md", str(DOCS / "config.md")))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); name another folder.") from error
    memgap = program(folder)
    print(f"{config}  what is measured: change it at will")
    print("next:")
    print(f"  cd {folder}")
    print(f"  {memgap} install          # vLLM into .venv-engine, a few minutes")
    print(f"  {memgap} run --dry-run    # the jobs")
    print(f"  {memgap} run              # measure, draw, advise")
