"""Prefill and decode on servers of their own: the flags and ports that each engine needs for it, by the router's kind.

Facts: vLLM's NixlConnector has roles, and each of its servers listens on a side channel of its own; without
`kv_load_failure_policy: fail` a prompt whose KV cache did not come is computed again in silence. SGLang's prefill
server listens on a bootstrap port, which the router tells the decode server.
"""

from collections.abc import Callable, Mapping
from typing import Any

from memgap.errors import UserError

PREFILL, DECODE = "prefill", "decode"
NIXL, BOOTSTRAP = "nixl-pull", "sglang-bootstrap"
SPLIT_ROUTERS = (NIXL, BOOTSTRAP)
"""Routers between prefill and decode servers."""
FOREIGN: Mapping[str, str] = {"vllm-router": NIXL, "sglang-router": BOOTSTRAP}
"""Routers of other projects, by the names of their packages, and how they split requests where members have roles."""
ENGINES: Mapping[str, tuple[str, ...]] = {NIXL: ("vllm", "mock"), BOOTSTRAP: ("sglang",)}
"""The adapters whose servers a router can split a request between."""
TRANSFER_FLAG, MODE_FLAG, BOOTSTRAP_FLAG = (
    "kv-transfer-config",
    "disaggregation-mode",
    "disaggregation-bootstrap-port",
)
KV_ROLES = {PREFILL: "kv_producer", DECODE: "kv_consumer"}


def protocol_of(kind: str) -> str:
    """Return how a router splits requests between members with roles: one of `SPLIT_ROUTERS`."""
    return FOREIGN.get(kind, kind)


def role_flags(kind: str, adapter: str, role: str, flags: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the flags of a member with those that its role needs, as far as they are not given.

    `flags` are the member's with those that all share. Raises UserError for an engine that the router cannot split.
    """
    if not role:
        return {}
    engines = ENGINES[protocol_of(kind)]
    if adapter not in engines:
        raise UserError(f"{where}: the router {kind} is for {' and '.join(engines)}, not for {adapter}.")
    if protocol_of(kind) == BOOTSTRAP:
        return {MODE_FLAG: role}
    given = flags.get(TRANSFER_FLAG) or {}
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: the server flag {TRANSFER_FLAG} has to be a mapping here, not {given!r}.")
    wanted = {"kv_connector": "NixlConnector", "kv_load_failure_policy": "fail", **given, "kv_role": KV_ROLES[role]}
    return {TRANSFER_FLAG: wanted}


def ports_of(kind: str, role: str, free_port: Callable[[], int]) -> tuple[dict[str, str], dict[str, Any], int | None]:
    """Return variables and flags of a member that name ports of its own, and the port that its router has to know."""
    if role and protocol_of(kind) == NIXL:
        port = str(free_port())
        return {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", "VLLM_NIXL_SIDE_CHANNEL_PORT": port}, {}, None
    if role == PREFILL and protocol_of(kind) == BOOTSTRAP:
        bootstrap = free_port()
        return {}, {BOOTSTRAP_FLAG: bootstrap}, bootstrap
    return {}, {}, None
