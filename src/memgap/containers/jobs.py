"""What Snakemake's jobs need to run in an image: a name that follows its content, and the folders seen inside."""

import os
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from memgap.containers.digest import local_path
from memgap.errors import UserError

LINKS = Path(".snakemake/memgap/images")
BINDS = ("APPTAINER_BIND", "SINGULARITY_BIND")
"""Where Apptainer and its forerunner read folders to bind from."""


def image_for_jobs(settings: Mapping[str, Any]) -> str | None:
    """Return the image as rules name it: an address with digest, or a link that is named by the file's content.

    So a file that was moved or renamed is the same image to Snakemake, and another file of the same name is another.
    `settings` are an engine's, with `image_digest` filled in.
    """
    image: str | None = settings["image"]
    if image is None or local_path(image) is None:
        return image
    return str(_link(settings["image_digest"]))


def prepare_images(
    settings: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    scripts: Path,
    environment: MutableMapping[str, str],
) -> None:
    """Link every local image by its content, and bind what its sessions read beside the working directory.

    These are the workflow's scripts, local models, and the Hugging Face cache, which HF_HOME names in the image too:
    Snakemake makes the working directory the home inside. `settings` are the engines' by name, `records` those of all
    points. Raises UserError for a path that cannot be bound.
    """
    engines = [engine for engine in settings.values() if engine["image"] is not None]
    if not engines:
        return
    for engine in engines:
        path = local_path(engine["image"])
        if path is not None and path.exists():
            _make_link(_link(engine["image_digest"]), path.absolute())
    models = {record["model"]["name"]: record["model"] for record in records if record["engine"]["image"] is not None}
    folders = [scripts, *(Path(model["path"]) for model in models.values() if model["weights"] == "path")]
    if any(model["weights"] == "hub" for model in models.values()):
        cache = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface").absolute()
        environment["HF_HOME"] = str(cache)
        folders.append(cache)
    _bind([folder.absolute() for folder in folders], environment)


def _bind(folders: list[Path], environment: MutableMapping[str, str]) -> None:
    here = Path.cwd()
    wanted = []
    for folder in folders:
        if folder.is_relative_to(here) or not folder.exists():
            continue
        if set(str(folder)) & set(",:"):
            raise UserError(f"{folder} cannot be seen inside a container: its name has a comma or a colon; rename it.")
        wanted.append(str(folder))
    for name in BINDS:
        given = [one for one in environment.get(name, "").split(",") if one]
        environment[name] = ",".join(dict.fromkeys([*given, *wanted]))


def _link(digest: str) -> Path:
    return LINKS / f"{digest.removeprefix('sha256:')}.sif"


def _make_link(link: Path, target: Path) -> None:
    """Point `link` at `target`, at once for whoever reads it."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
