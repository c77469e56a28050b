"""A server that is there already: neither started nor stopped, asked nothing but what a client asks."""

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.failure import ServerFailureError
from memgap.errors import UserError
from memgap.host.protocol import Check, Entry, HostPlan, Server
from memgap.loopback import fetch
from memgap.redact import redact

UNREACHABLE = "unreachable"
ANSWER_TIMEOUT_S = 10.0
SETTLE_S, SETTLE_LIMIT_S = 2.0, 20.0


class Remote(Server):
    """The server at `record["server"]["url"]`; the key, where there is one, is that of an environment variable.

    What such a server does not say is absent: its GPU, its pool, often its version. Its caches are not emptied, since
    others may rely on them.
    """

    noun = "server"
    local = False

    def __init__(self, plan: HostPlan) -> None:
        self._server = plan.record["server"]
        self._url = str(self._server["url"])
        self.adapter = adapter_for(plan.record["engine"]["adapter"])
        self.api_key = _key(self._server["key_variable"])
        self.served_model = ""
        self.start_s = 0.0
        self._answers = False
        self._has_metrics = False
        self._facts = EngineFacts()

    @property
    def alive(self) -> bool:
        """Whether it answered when it was asked last."""
        return self._answers

    @property
    def urls(self) -> list[str]:
        """See Host."""
        return [self._url]

    @property
    def metrics_urls(self) -> list[str]:
        """See Host: none where the page has nothing that the engine's adapter knows."""
        return self.urls if self._has_metrics else []

    @property
    def facts(self) -> EngineFacts:
        """See Host."""
        return self._facts

    @property
    def told(self) -> dict[str, Any]:
        """See Host, and the name of the model that is served."""
        return {**super().told, "start_s": None, "served_model": self.served_model}

    def start(self, check: Check = lambda: None, points: Sequence[Entry] = ()) -> None:
        """Ask which models it serves. Raises ServerFailureError ("unreachable", "bad_config")."""
        check()
        try:
            listed = [one for one in self._json("/v1/models")["data"] if isinstance(one, dict)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = redact(str(error), [self.api_key] if self.api_key else [])
            raise ServerFailureError(
                UNREACHABLE, f"{self._url}/v1/models does not answer as it should: {why}", ""
            ) from error
        names = [str(one.get("id")) for one in listed]
        wanted = self._server["model"]
        if not names or (wanted is not None and wanted not in names):
            served = ", ".join(names) or "no model"
            raise ServerFailureError("bad_config", f"{self._url} serves {served}, not {wanted or 'one'}", "")
        self.served_model = wanted or names[0]
        entry = listed[names.index(self.served_model)]
        longest = entry.get("max_model_len")
        self._facts = EngineFacts(version=self._version(), max_model_len=longest if isinstance(longest, int) else None)
        self._has_metrics = bool(self.adapter.metrics_sample(self._page()))
        self._answers = True

    def stop(self) -> None:
        """Forget that it answered; the server stays as it is."""
        self._answers = False

    def settle(self) -> bool:
        """See Host: a server that no longer answers is as good as gone."""
        since_s, limit_s = time.monotonic(), time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() - since_s < SETTLE_S:
            try:
                self._json("/v1/models")
            except (OSError, ValueError):
                since_s = time.monotonic()
                if since_s > limit_s:
                    self._answers = False
                    return False
            time.sleep(0.1)
        return True

    def reset_caches(self) -> bool:
        """See Host: never."""
        return False

    def death(self) -> ServerFailureError:
        """See Host."""
        return ServerFailureError(UNREACHABLE, f"{self._url} no longer answers", "")

    def log_tail(self, lines: int = 40) -> str:
        """See Host: it is not ours to read."""
        return ""

    def detokenize(self, model: str, token_ids: list[int]) -> str:
        """See Server: prompts are made of words."""
        raise ServerFailureError("bad_config", "prompts for a server that is there already are words, not tokens", "")

    def _version(self) -> str | None:
        try:
            found = self._json("/version").get("version")
        except (OSError, ValueError, AttributeError):
            return None
        return found if isinstance(found, str) else None

    def _page(self) -> Any:
        from memgap.telemetry.sampler import fetch_page

        return fetch_page(self._url, ANSWER_TIMEOUT_S)

    def _json(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return json.loads(fetch(self._url + path, ANSWER_TIMEOUT_S, headers=headers)[1])


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    if not os.environ.get(variable):
        raise UserError(f"the key of the server is to come from the variable {variable}, which is not set; export it.")
    return os.environ[variable]
