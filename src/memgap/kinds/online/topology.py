"""The part of a record that says which servers share a load, in which roles and behind which router."""

from collections.abc import Mapping
from typing import Any

from memgap.engine.disaggregation import DECODE, FOREIGN, PREFILL, SPLIT_ROUTERS, role_flags
from memgap.engine.given import GivenFlags, without_none
from memgap.engine.reserved import check_flags, check_variables
from memgap.errors import UserError
from memgap.points.point import Record


def topology(arguments: Mapping[str, Any], engine: Record, flags: Record, where: str) -> Record:
    """Return the topology of a record from a configuration's, without defaults. Raises UserError where its members
    cannot be served by its router.
    """
    for name in ("replicas", "mps"):
        if arguments.get(name, 1) not in (1, False):
            raise UserError(
                f"{where}: `{name}` share one GPU, the members of `topology` have their own; use one of both."
            )
    given = arguments["topology"]
    kind = given.get("router", {}).get("kind", "least-outstanding")
    roles = {name: one.get("role", "") for name, one in given["members"].items()}
    split = kind in SPLIT_ROUTERS or (kind in FOREIGN and any(roles.values()))
    if set(roles.values()) != ({PREFILL, DECODE} if split else {""}):
        wants = f"members of the roles {PREFILL} and {DECODE}" if split else "members without a role"
        raise UserError(f"{where}: topology.router.kind {kind} needs {wants}.")
    members: Record = {}
    for name, one in given["members"].items():
        own = without_none(one.get("server", {}))
        check_flags(own, f"{where}: topology.members.{name}", reserved=GivenFlags(engine["adapter"], {}).names.reserved)
        env = dict(one.get("env", {}))
        check_variables(env, f"{where}: topology.members.{name}")
        own |= role_flags(kind, engine["adapter"], roles[name], {**flags, **own}, where)
        members[name] = {"role": roles[name], "server": own, "env": env}
    return {"members": members, "router": _router(kind, given.get("router", {}), where)}


def _router(kind: str, given: Mapping[str, Any], where: str) -> Record:
    if kind not in FOREIGN:
        if surplus := next((name for name in ("version", "args") if name in given), None):
            raise UserError(f"{where}: topology.router.{surplus} is for {' and '.join(FOREIGN)}, not for {kind}.")
        return {"kind": kind}
    if "version" not in given:
        raise UserError(f"{where}: topology.router.version is missing; name the release of {kind} that is installed.")
    return {"kind": kind, "version": given["version"], "args": dict(given.get("args", {}))}
