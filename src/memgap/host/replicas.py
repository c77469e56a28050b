"""The servers that share one load: one, or several replicas of a configuration on one GPU, with or without MPS."""

import dataclasses
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from memgap.engine.adapters import adapter_for
from memgap.engine.base import EngineFacts
from memgap.engine.failure import ServerFailureError
from memgap.host.gpus import server_gpus
from memgap.host.mps import FAILED, Mps
from memgap.host.protocol import Check, Entry, HostPlan, Server
from memgap.host.server import EngineServer
from memgap.telemetry.startup import StartupSampler


class Replicas(Server):
    """All servers of a server record; they start, fail and stop together.

    The record's `server` part says how many (`replicas`) and whether they share the GPU through MPS (`mps`). They have
    one API key, which changes with every start. `facts` are those of the replica with the smallest KV-cache pool.
    """

    noun = "server"

    def __init__(self, plan: HostPlan) -> None:
        self._plan, self._server = plan, plan.record
        self._log = plan.scratch / "server.log"
        self._mps = Mps({**plan.env, **plan.record["server"]["env"]}) if plan.record["server"].get("mps") else None
        self._number = int(plan.record["server"].get("replicas", 1))
        self.servers: list[EngineServer] = []
        self._failed: EngineServer | None = None
        self._starting = StartupSampler(
            lambda: [pid for pid in self.pids if pid], gpus=lambda: server_gpus(self._server).ids
        )
        self.adapter = adapter_for(plan.record["engine"]["adapter"])

    @property
    def alive(self) -> bool:
        """Whether all servers run, and MPS where it is used."""
        return bool(self.servers) and all(one.alive for one in self.servers) and self._mps_alive

    @property
    def _mps_alive(self) -> bool:
        return self._mps is None or self._mps.alive

    @property
    def urls(self) -> list[str]:
        """The address of each server."""
        return [one.url for one in self.servers]

    @property
    def pids(self) -> list[int]:
        """The process id of each server."""
        return [one.pid for one in self.servers]

    @property
    def helper_pids(self) -> list[int]:
        """The MPS daemon, where there is one; its own server is on the GPU as well."""
        return [self._mps.pid] if self._mps is not None and self._mps.pid is not None else []

    @property
    def environment(self) -> dict[str, str]:
        """See Host."""
        return {**self._server["server"]["env"], **self._own_env}

    @property
    def _own_env(self) -> dict[str, str]:
        return {**self._plan.env, **(self._mps.env if self._mps is not None else {})}

    @property
    def profile_folders(self) -> list[Path]:
        """Where the profiler of each server writes, if they have one."""
        return [one.profile_folder for one in self.servers if one.profile_folder is not None]

    @property
    def commands(self) -> list[list[str]]:
        """The command line of each server."""
        return [one.command for one in self.servers]

    @property
    def facts(self) -> EngineFacts:
        """What the servers say of themselves."""
        known = [one.facts for one in self.servers]
        return min(known, key=lambda one: one.kv_pool_tokens or 0) if known else EngineFacts()

    @property
    def startup_s(self) -> Mapping[str, float]:
        """See Host: the first server's."""
        return self.servers[0].startup_s if self.servers else {}

    @property
    def told(self) -> dict[str, Any]:
        """See Host."""
        pools = [one.facts.kv_pool_tokens for one in self.servers]
        return {**super().told, "kv_pool_tokens_by_replica": pools}

    def start(self, check: Check = lambda: None, points: Sequence[Entry] = ()) -> None:
        """Start everything and return when all are ready; `check` is called while waiting and may raise.

        Replicas start at once, but one after another where the engine measures the memory that is left for it, since
        it would take its neighbours' for its own. Raises ServerFailureError, see EngineServer.start and Mps.start.
        """
        self.stop()
        began_s, self._failed = time.monotonic(), None
        self.api_key = secrets.token_urlsafe(24)
        try:
            if self._mps is not None:
                self._mps.start(check)
            self.servers = [self._replica(number) for number in range(self._number)]
            with self._starting:
                self._start_servers(check)
        except ServerFailureError as failure:
            raise self._whose(failure) from failure
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - began_s

    @property
    def startup_rows(self) -> list[dict[str, float]]:
        """Memory over time of the last start, see memgap.telemetry.startup."""
        return self._starting.rows

    def _start_servers(self, check: Check) -> None:
        if self._number > 1 and not self.adapter.measures_free_memory(self._server):
            self._start_together(check)
            return
        for server in self.servers:
            server.start(check)

    def _replica(self, number: int) -> EngineServer:
        log = self._log if self._number == 1 else self._log.with_stem(f"{self._log.stem}-{number + 1}")
        port = None if self._plan.port is None else self._plan.port + number
        profile = self._log.parent / f"profile-{number + 1}" if self._server["server"].get("profile") else None
        plan = dataclasses.replace(self._plan, port=port, env=self._own_env)
        return EngineServer(plan, log, self.api_key, profile)

    def _start_together(self, check: Check) -> None:
        failed: list[BaseException] = []

        def start(server: EngineServer) -> None:
            def check_both() -> None:
                check()
                if failed:
                    raise ServerFailureError("crash", "another replica failed", "")

            try:
                server.start(check_both)
            except BaseException as error:
                self._failed = self._failed or server
                failed.append(error)

        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(start, self.servers))
        if failed:
            raise failed[0]

    def _whose(self, failure: ServerFailureError) -> ServerFailureError:
        """Stop what runs; return the failure with the replica named where there are several."""
        numbers = [number for number, one in enumerate(self.servers, start=1) if not one.alive]
        self.stop()
        if self._number == 1 or failure.kind == FAILED or not numbers:
            return failure
        return ServerFailureError(failure.kind, f"of {self._number} replicas, one failed: {failure}", failure.log_tail)

    def settle(self) -> bool:
        """After failed requests: return once every server is known to be well or gone (true), or one hangs (false)."""
        settled = [one.settle() for one in self.servers]
        return all(settled)

    def death(self) -> ServerFailureError:
        """Return why what ran has ended, from the logs."""
        dead = [(number, one) for number, one in enumerate(self.servers, start=1) if not one.alive]
        if not dead and self._mps is not None and not self._mps.alive:
            return ServerFailureError(FAILED, "the MPS daemon died under load", self._mps.log_tail())
        number, server = dead[0] if dead else (1, self.servers[0])
        death = server.death()
        if self._number == 1:
            return death
        return ServerFailureError(death.kind, f"replica {number} of {self._number}: {death}", death.log_tail)

    def reset_caches(self) -> bool:
        """Empty the prefix cache of every server; false where one cannot."""
        emptied = [self.adapter.reset_prefix_cache(one.url, self.api_key) for one in self.servers]
        return all(emptied)

    def detokenize(self, model: str, token_ids: list[int]) -> str:
        """Return the text of token ids by the tokenizer of the first server, see EngineServer.detokenize."""
        return self.servers[0].detokenize(model, token_ids)

    def stop(self) -> None:
        """Stop all servers, then MPS; returns when nothing of them is left."""
        if len(self.servers) > 1:
            with ThreadPoolExecutor(len(self.servers)) as pool:
                list(pool.map(EngineServer.stop, self.servers))
        for server in self.servers:
            server.stop()
        if self._mps is not None:
            self._mps.stop()

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of every server's log."""
        if len(self.servers) <= 1:
            return self.servers[0].log_tail(lines) if self.servers else ""
        return "\n".join(
            f"--- replica {number}\n{one.log_tail(lines)}" for number, one in enumerate(self.servers, start=1)
        )
