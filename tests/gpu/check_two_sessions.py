"""Two sessions at once on one GPU: `python tests/gpu/check_two_sessions.py --out FILE` (or `--engine mock`, simulated).

side-by-side: both servers fit; both sessions end, and each one's verdict says that another process was on the GPU.
no-room: the second server asks for memory that the first one has; it is recorded as out of memory.
In both, nothing is left running. The report says what was seen, as JSON; the exit status is 1 where a check failed.
"""

import sys

from checks import Bench, Session, parse, run

POOL_BYTES = 2 * 2**30


def side_by_side(bench: Bench) -> dict[str, bool]:
    """Start two servers of different length limits at once."""
    pool = {} if bench.simulated else {"kv-cache-memory-bytes": POOL_BYTES, "gpu-memory-utilization": 0.3}
    sessions = [bench.session(f"length-{n}", server={"max-model-len": n, **pool}) for n in (512, 1024)]
    for one in sessions:
        one.start()
    bench.finish()
    return {
        "two different servers": sessions[0].plan["session"] != sessions[1].plan["session"],
        "both sessions end well": all(one.process is not None and one.process.returncode == 0 for one in sessions),
        "both points are recorded as measured": [statuses(one) for one in sessions] == [["ok"], ["ok"]],
        "both verdicts are invalid for the other's process": all(map(blames_the_other, sessions)),
    }


def no_room(bench: Bench) -> dict[str, bool]:
    """Start a server that takes the GPU's memory, and once it is ready a second one that wants as much."""
    second_server = {"max-model-len": 1024}
    if bench.simulated:
        second_server["fault"] = "oom-start"
    first = bench.session("first", server={"max-model-len": 512})
    second = bench.session("second", server=second_server)
    first.start()
    bench.until(lambda: first.ready() or first.ended())
    second.start()
    bench.finish()
    return {
        "both sessions end well": all(
            one.process is not None and one.process.returncode == 0 for one in (first, second)
        ),
        "the first point is recorded as measured": statuses(first) == ["ok"],
        "the second point is recorded as out of memory": statuses(second) == ["oom"],
    }


def statuses(session: Session) -> list[str]:
    """Return the statuses of a session's stored points."""
    return [point["status"] for point in session.points()]


def blames_the_other(session: Session) -> bool:
    """Whether a point's verdict is invalid because of a foreign process on the GPU."""
    verdicts = [point.get("verdict", {}) for point in session.points()]
    return any(
        one.get("verdict") == "invalid" and any(why["check"] == "foreign_processes" for why in one["reasons"])
        for one in verdicts
    )


SCENARIOS = {"side-by-side": side_by_side, "no-room": no_room}


if __name__ == "__main__":
    sys.exit(run(parse("Two sessions at once on one GPU.", SCENARIOS, None), SCENARIOS))
