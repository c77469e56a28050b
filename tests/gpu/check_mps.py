"""Replicas under MPS: `python tests/gpu/check_mps.py --out FILE` (or `--engine mock`, simulated).

run: two replicas measure a point. killed-replica: one of them is killed in mid-run, which is the point's failure.
killed-session: the session itself is killed in mid-run. In all of them no server, MPS process or folder is left.
The report says what was seen, as JSON; the exit status is 1 where a check failed.
"""

import sys
import time

from checks import MPS_PROCESSES, Bench, Session, parse, run

POOL_BYTES = 8 * 2**30
MID_RUN_S = {"mock": 1.0, "vllm": 5.0}
"""So long after the servers are ready the load is under way."""


def whole_run(bench: Bench) -> dict[str, bool]:
    """Let two replicas measure a point."""
    session = started(bench)
    bench.until(lambda: session.ready() or session.ended())
    daemons = bool(bench.mps_processes())
    bench.finish()
    points = session.points()
    return {
        f"{MPS_PROCESSES}* ran": daemons,
        "the point is recorded as measured": [one["status"] for one in points] == ["ok"],
        "the daemon's own processes are not taken for another's": not any(
            why["check"] == "foreign_processes" for one in points for why in one["verdict"]["reasons"]
        ),
    }


def killed_replica(bench: Bench) -> dict[str, bool]:
    """Kill the second replica in mid-run."""
    session = in_mid_run(bench)
    servers = session.servers()
    for one in servers[1:]:
        one.kill()
    bench.finish()
    points = session.points()
    return {
        "two replicas ran": len(servers) == 2,
        "the session ends well": session.process is not None and session.process.returncode == 0,
        "the failure is recorded": [one["status"] for one in points] == ["crash"],
        "it names a replica": all("of 2" in one["error"]["message"] for one in points),
    }


def killed_session(bench: Bench) -> dict[str, bool]:
    """Kill the session in mid-run: nothing is recorded."""
    session = in_mid_run(bench)
    servers = session.servers()
    assert session.process is not None
    session.process.kill()
    bench.finish()
    return {"two replicas ran": len(servers) == 2, "no half-measured point is recorded": session.points() == []}


def started(bench: Bench) -> Session:
    """Return a started session of two replicas under MPS."""
    pool = {} if bench.simulated else {"kv-cache-memory-bytes": POOL_BYTES}
    session = bench.session("replicas", replicas=2, mps=True, server={"max-model-len": 512, **pool})
    session.start()
    return session


def in_mid_run(bench: Bench) -> Session:
    """Return such a session whose load is under way."""
    session = started(bench)
    bench.until(lambda: session.ready() or session.ended())
    began_s = time.monotonic()
    bench.until(lambda: time.monotonic() - began_s > MID_RUN_S[bench.options.engine])
    return session


SCENARIOS = {"run": whole_run, "killed-replica": killed_replica, "killed-session": killed_session}


if __name__ == "__main__":
    sys.exit(run(parse("Replicas under MPS.", SCENARIOS, None), SCENARIOS))
