"""Requests to a server of our own, on 127.0.0.1: never through a proxy, whatever the environment says.

urllib and requests take proxies from `http_proxy`, `all_proxy` and the like, and a `no_proxy` of `localhost` does not
cover 127.0.0.1. Whatever asks one of our servers asks it with `fetch`; a test holds the source to that.
"""

import http.client
import urllib.request
from collections.abc import Mapping
from typing import Final

HOSTS: Final = ("127.0.0.1", "localhost", "::1")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(
    url: str, timeout_s: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Return status and content of a GET, or with a `body` of a POST, sent straight to the server.

    Raises OSError for whatever goes wrong, a status of 400 and more and a broken reply included.
    """
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return int(response.status), bytes(response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__} {error}") from error


def answers(url: str) -> bool:
    """Whether a GET is answered with status 200 within two seconds."""
    try:
        return fetch(url, 2)[0] == 200
    except OSError:
        return False


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a program and its children reach these hosts without a proxy.

    Servers ask themselves too: SGLang is not ready before it has answered itself. Both spellings of `no_proxy` get the
    hosts, since programs differ in the one they look at.
    """
    if not any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in environment):
        return dict(environment)
    lower, upper = (environment.get(name, "").strip() for name in ("no_proxy", "NO_PROXY"))
    return {**environment, "no_proxy": _with_hosts(lower or upper), "NO_PROXY": _with_hosts(upper or lower)}


def _with_hosts(said: str) -> str:
    if said == "*":
        return said
    named = [one.strip() for one in said.split(",") if one.strip()]
    return ",".join([*named, *(host for host in HOSTS if host not in named)])
