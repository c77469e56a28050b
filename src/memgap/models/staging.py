"""Fetches a model of the hub into a folder, on a machine with a network, for jobs that have none.

The folder is a cache in the hub client's own layout, so that an engine finds the model in it by its name and revision:
its command line stays the same, with or without a network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json, content_key
from memgap.errors import UserError
from memgap.models.registry import MADE_HERE
from memgap.store.atomic import write_text

CACHE = Path("hub") / "cache"
"""Where the models are, below the results folder."""
OTHER_FORMATS = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "original/*", "*.gguf")
PICKLED = ("*.bin", "*.pt", "*.pth")


def hub_model_name(model: Mapping[str, Any]) -> str | None:
    """Return the name of the file that says that a model is staged, or None where its weights are not the hub's."""
    if model["weights"] != "hub":
        return None
    return f"{model['name']}-{content_key({'hub_id': model['hub_id'], 'revision': model['revision']}, 8)}"


def model_folder_name(model: Mapping[str, Any]) -> str | None:
    """Return the name of the folder that is written for a model, or None where its weights are not made here."""
    if model["weights"] not in MADE_HERE:
        return None
    return f"{model['name']}-{content_key(model, 8)}"


def offline_variables(results: Path) -> dict[str, str]:
    """Return the variables that let an engine find staged models and keep it off the network."""
    return {
        "HF_HUB_CACHE": str((results / CACHE).absolute()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def stage_model(model: Mapping[str, Any], results: Path, out: Path) -> None:
    """Fetch the model's files at its revision and write to `out` which commit they are of and how large they are.

    Raises UserError where the hub cannot be reached or refuses; what was fetched stays and is gone on with next time.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("models are staged with the package huggingface_hub, which is not installed.") from None
    hub_id, revision, cache = model["hub_id"], model["revision"], results / CACHE
    try:
        files = huggingface_hub.HfApi().list_repo_files(hub_id, revision=revision)
        folder = Path(
            huggingface_hub.snapshot_download(
                hub_id, revision=revision, cache_dir=cache, ignore_patterns=list(ignored(files))
            )
        )
    except Exception as error:  # whatever the hub's client or the network raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot fetch {hub_id} at {revision} from the hub: {reason.rstrip('.')}.") from None
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*"))}
    staged = {"hub_id": hub_id, "revision": revision, "commit": folder.name, "files_bytes": sizes}
    write_text(out, canonical_json(staged) + "\n")


def ignored(files: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns of files that no engine here reads; pickled weights only where there are none else."""
    safe = any(name.endswith(".safetensors") for name in files)
    return (*OTHER_FORMATS, *PICKLED) if safe else OTHER_FORMATS
