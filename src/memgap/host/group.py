"""Servers on GPUs of their own behind a router: they start, fail and stop together, and are loaded as one."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from memgap.engine.disaggregation import PREFILL, ports_of
from memgap.engine.failure import ServerFailureError, first_error
from memgap.engine.given import GivenFlags, member_flags
from memgap.host.gpus import server_gpus
from memgap.host.ports import free_port
from memgap.host.protocol import Check, HostPlan
from memgap.host.replicas import Replicas
from memgap.host.routers import Behind, router_command
from memgap.host.server import EngineServer
from memgap.host.supervised import Supervised
from memgap.loopback import answers
from memgap.redact import redact
from memgap.telemetry.gpus import CHOSEN

ROUTER_FAILED = "router_failed"
"""Status of a point whose router did not start or died."""
ROUTER_START_S = 60.0


class Group(Replicas):
    """The members of `record["server"]["topology"]` and its router.

    Members share the record's flags and variables; each has its own beside them, a role, and GPUs: the next ones of the
    session's, as many as its flags spread it over. A load goes to the router. What counts replies is read from the
    members that answer; a prefill server's own token a request is none.
    """

    noun = "group of servers"

    def __init__(self, plan: HostPlan) -> None:
        super().__init__(plan)
        topology = plan.record["server"]["topology"]
        self._members: Mapping[str, Mapping[str, Any]] = dict(sorted(topology["members"].items()))
        self._settings: Mapping[str, Any] = topology["router"]
        self._kind: str = self._settings["kind"]
        self._number = len(self._members)
        self._router_log = plan.scratch / "router.log"
        self._router: Supervised | None = None
        self._router_command: list[str] = []
        self._router_url = ""
        self._devices: dict[str, list[str]] = {}
        self._bootstraps: dict[str, int | None] = {}

    @property
    def alive(self) -> bool:
        """Whether all members and the router run."""
        return self._router is not None and self._router.alive and super().alive

    @property
    def urls(self) -> list[str]:
        """See Host: the router."""
        return [self._router_url]

    @property
    def metrics_urls(self) -> list[str]:
        """See Host: the members that answer."""
        return [one.url for name, one in self.named.items() if self._members[name]["role"] != PREFILL]

    @property
    def member_urls(self) -> dict[str, str]:
        """See Server."""
        return {name: one.url for name, one in self.named.items()}

    def before_the_reply(self, members: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """See Server: `prefill_e2e_mean_ms`, the mean time of a request at a prefill server."""
        lasted_ms = [
            one["server_e2e_mean_ms"]
            for name, one in members.items()
            if self._members[name]["role"] == PREFILL and "server_e2e_mean_ms" in one
        ]
        return {"prefill_e2e_mean_ms": sum(lasted_ms) / len(lasted_ms)} if lasted_ms else {}

    @property
    def named(self) -> dict[str, EngineServer]:
        """The members by name."""
        return dict(zip(self._members, self.servers, strict=False))

    @property
    def helper_pids(self) -> list[int]:
        """See Host."""
        return [*super().helper_pids, *([self._router.pid] if self._router is not None else [])]

    @property
    def commands(self) -> list[list[str]]:
        """See Host."""
        return [*super().commands, self._router_command]

    @property
    def told(self) -> dict[str, Any]:
        """See Host, and of each member its role and what it says of itself."""
        members = {
            name: {"role": self._members[name]["role"], "start_s": one.start_s, **dataclasses.asdict(one.facts)}
            for name, one in self.named.items()
        }
        return {**super().told, "members": members, "router": self._kind}

    def _start_servers(self, check: Check) -> None:
        self._start_together(check)
        self._start_router(check)

    def _replica(self, number: int) -> EngineServer:
        name = list(self._members)[number]
        self._devices = self._devices or devices_of(self._server)
        record = member_record(self._server, name)
        port = None if self._plan.port is None else self._plan.port + 1 + number
        role = self._members[name]["role"]
        variables, flags, self._bootstraps[name] = ports_of(self._kind, role, free_port)
        record["server"]["args"] |= flags
        env = {**self._own_env, **variables}
        if self._devices[name]:
            env[CHOSEN] = ",".join(self._devices[name])
        profile = self._log.parent / f"profile-{name}" if self._server["server"].get("profile") else None
        plan = dataclasses.replace(self._plan, record=record, port=port, env=env)
        return EngineServer(plan, self._log.with_stem(f"{self._log.stem}-{name}"), self.api_key, profile)

    def _start_router(self, check: Check) -> None:
        port = free_port() if self._plan.port is None else self._plan.port
        self._router_url = f"http://127.0.0.1:{port}"
        behind = [
            Behind(name, self._members[name]["role"], one.url, self._bootstraps[name])
            for name, one in self.named.items()
        ]
        self._router_command = router_command(self._settings, behind, port)
        self._router = Supervised(self._router_command, self._router_log, {})
        until_s = time.monotonic() + ROUTER_START_S
        while not self._router_answers:
            if not self._router.alive or time.monotonic() > until_s:
                raise ServerFailureError(
                    ROUTER_FAILED, f"the router did not start ({first_error(self._router_text)})", self._router_text
                )
            check()
            time.sleep(0.05)

    @property
    def _router_answers(self) -> bool:
        return answers(f"{self._router_url}/health")

    @property
    def _router_text(self) -> str:
        return redact(self._router_log.read_text(encoding="utf-8", errors="replace")) if self._router else ""

    def _whose(self, failure: ServerFailureError) -> ServerFailureError:
        names = [name for name, one in self.named.items() if one is self._failed]
        self.stop()
        if not names:
            return failure
        return ServerFailureError(failure.kind, f"of the group, {names[0]} failed: {failure}", failure.log_tail)

    def death(self) -> ServerFailureError:
        """See Host: a member's, else the router's."""
        for name, one in self.named.items():
            if not one.alive:
                death, role = one.death(), self._members[name]["role"]
                return ServerFailureError(death.kind, f"{f'{role} ' if role else ''}{name}: {death}", death.log_tail)
        return ServerFailureError(ROUTER_FAILED, "the router died under load", self._router_text)

    def settle(self) -> bool:
        """See Host: with a router that has gone nothing answers, whatever the members do."""
        return super().settle() and (self._router is None or not self._router.alive or self._router_answers)

    def stop(self) -> None:
        """Stop the router, then the members; returns when nothing of them is left."""
        if self._router is not None:
            self._router.stop()
            self._router = None
        super().stop()

    def log_tail(self, lines: int = 40) -> str:
        """See Host: every member's and the router's."""
        tails = {**{name: one.log_tail(lines) for name, one in self.named.items()}, "router": self._router_text}
        return "\n".join(f"--- {name}\n{text}" for name, text in tails.items()) if self.servers else ""


def member_record(server: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the server record of one member, as if it were alone."""
    own = server["server"]
    member = own["topology"]["members"][name]
    alone = {key: value for key, value in own.items() if key != "topology"}
    alone |= {"args": member_flags(own)[name], "env": {**own["env"], **member.get("env", {})}}
    return {**server, "server": alone}


def devices_of(server: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of each member's GPUs, none where the machine shows no GPU at all.

    Raises ServerFailureError where it shows fewer than the group takes.
    """
    flags = {name: GivenFlags(server["engine"]["adapter"], one) for name, one in member_flags(server["server"]).items()}
    choice = server_gpus(server)
    ids, needed = choice.ids, sum(one.gpus for one in flags.values())
    if not ids and not choice.doubt:
        return {name: [] for name in flags}
    if len(ids) < needed:
        why = choice.doubt or f"{len(ids)} can be used"
        raise ServerFailureError("bad_config", f"the group takes {needed} GPUs, but {why}", "", hopeless=True)
    given = iter(ids)
    return {name: [next(given) for _ in range(one.gpus)] for name, one in flags.items()}
