"""A model of the Hugging Face hub by its id alone: its newest commit and its shape, read once and pinned.

What was read is kept in `models.lock.json` in the working folder, beside the configuration: the commit, the shape and
the type. A later run, or a job without a network, reads it there, so that a study keeps its models. Take an entry out
to take the newest commit again.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.models.hf_config import from_hf_config, hf_config_dtype
from memgap.store.atomic import write_text

LOCK = "models.lock.json"
BESIDE = ("hf_quant_config.json", "quantize_config.json")
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class HubModel:
    """What the hub says of a model: the commit of a revision, its `architecture` as in records, and its dtype."""

    commit: str
    architecture: dict[str, Any]
    dtype: str


def hub_model(hub_id: str, revision: str | None, where: str) -> HubModel:
    """Return a model of the hub as it is pinned, after reading and pinning it where it is not yet.

    Raises UserError, in one sentence that begins with `where`, where the hub cannot be reached or refuses.
    """
    name = hub_id if revision is None else f"{hub_id}@{revision}"
    pinned = _pinned(where)
    if name in pinned:
        try:
            return HubModel(**pinned[name])
        except TypeError:
            raise UserError(
                f"{where}: {LOCK} has no whole entry for {name}; take it out to read the hub again"
            ) from None
    found = _read(hub_id, revision or "main", where)
    try:
        write_text(Path(LOCK), json.dumps(pinned | {name: asdict(found)}, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(f"{where}: cannot pin the commit of {hub_id} in {LOCK} ({error.strerror})") from None
    return found


def _pinned(where: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(LOCK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{where}: {LOCK} cannot be read; take it out to read the hub again") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: {LOCK} must hold a JSON object; take it out to read the hub again")
    return content


def _read(hub_id: str, revision: str, where: str) -> HubModel:
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "ON", "YES", "TRUE"):
        raise UserError(f"{where}: {hub_id} is not pinned in {LOCK}, and HF_HUB_OFFLINE keeps it from being read")
    quoted = urllib.parse.quote(revision, safe="")
    told = _object(_get(f"api/models/{hub_id}/revision/{quoted}", hub_id, where), hub_id, where)
    commit, siblings = told.get("sha"), told.get("siblings")
    if not isinstance(commit, str) or not commit:
        raise UserError(f"{where}: the hub names no commit for {hub_id} at {revision}")
    files = [one.get("rfilename") for one in siblings or [] if isinstance(one, Mapping)]
    at = f"{hub_id}/resolve/{commit}"
    config = _object(_get(f"{at}/config.json", hub_id, where), hub_id, where)
    beside = next((name for name in BESIDE if name in files), None)
    quantization = None if beside is None else _object(_get(f"{at}/{beside}", hub_id, where), hub_id, where)
    spot = f"{where}, config.json of {hub_id}"
    return HubModel(commit, from_hf_config(config, spot, quantization).to_dict(), hf_config_dtype(config, spot))


def _get(path: str, hub_id: str, where: str) -> bytes:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/{path}", headers=_authorization())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            content: bytes = response.read()
            return content
    except urllib.error.HTTPError as error:
        raise UserError(f"{where}: {_refusal(error.code, hub_id, path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{where}: cannot read {hub_id} from the hub at {endpoint} ({reason})") from None


def _refusal(code: int, hub_id: str, path: str) -> str:
    if code in (401, 403):
        return (
            f"the hub does not give {hub_id} to everybody (status {code}): accept its conditions there and set "
            "HF_TOKEN to a token of yours, or check the name"
        )
    if code == 404:
        return f"the hub has no {path.rsplit('/', 1)[-1]} of {hub_id} (status 404)"
    return f"the hub answers with status {code} for {hub_id}"


def _authorization() -> dict[str, str]:
    """Return the header with the user's token, as the hub's own client finds it."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
        try:
            token = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            token = None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _object(content: bytes, hub_id: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{where}: the hub's answer about {hub_id} is no JSON object")
    return found
