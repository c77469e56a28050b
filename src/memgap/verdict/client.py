"""Checks of the load generator: did it keep up, so that its times are the server's?"""

from memgap.verdict.evidence import Evidence, Reason

LAG_SUSPECT_MS, LAG_SUSPECT_ITL = 5.0, 0.5
"""Suspect: the event loop's p99 lag above 5 ms and above half a mean ITL; a timer alone is late by 1 ms."""
LAG_INVALID_MS, LAG_INVALID_ITL = 50.0, 2.0
CPU_SUSPECT, CPU_INVALID = 0.8, 0.95
"""Shares of the one core that a client process can use."""
STANDSTILL_SUSPECT_MS, STANDSTILL_SUSPECT_ITL = 250.0, 5.0
"""Suspect: the longest lag of the client's event loop, above both 250 ms and 5 mean ITLs."""
STANDSTILL_INVALID = 0.1
"""Share of the window in which the client stood still."""
LATE_SUSPECT_MS, LATE_SUSPECT, LATE_INVALID = 50.0, 0.01, 0.1
"""How long after the others a client process began: in ms, and by the window."""
SLIP_SUSPECT_MS, SLIP_INVALID_MS = 10.0, 100.0
"""p99 of real minus intended send time in an open loop."""
COALESCED_SUSPECT = 0.05
"""Share of chunks that came in one read with an earlier chunk of their request: their times are the read's."""


def loop_lag(evidence: Evidence) -> Reason | None:
    """Judge how late the client's event loop ran."""
    lag_ms, itl_ms = evidence.of_client("loop_lag_p99_ms") or 0.0, evidence.number("itl_mean_ms") or 0.0
    invalid_ms = max(LAG_INVALID_MS, LAG_INVALID_ITL * itl_ms)
    suspect_ms = max(LAG_SUSPECT_MS, LAG_SUSPECT_ITL * itl_ms)
    text = f"the load generator's event loop was late by {lag_ms:.0f} ms at p99, so latencies are partly its own"
    return Reason.graded("loop_lag", lag_ms, suspect_ms, invalid_ms, text)


def client_standstill(evidence: Evidence) -> Reason | None:
    """Judge whether the client stood still for a while, which the 99th percentile of its lags does not show."""
    longest_ms, itl_ms = evidence.of_client("loop_lag_max_ms") or 0.0, evidence.number("itl_mean_ms") or 0.0
    stood_s, duration_s = evidence.of_client("standstill_s") or 0.0, evidence.number("duration_s") or 0.0
    suspect_ms = max(STANDSTILL_SUSPECT_MS, STANDSTILL_SUSPECT_ITL * itl_ms)
    if longest_ms <= suspect_ms:
        return None
    text = f"the load generator stood still for {longest_ms:.0f} ms, so the highest percentiles are partly its own"
    if duration_s and stood_s / duration_s > STANDSTILL_INVALID:
        text += f"; in all for {stood_s:.1f} of {duration_s:.1f} s"
        return Reason("client_standstill", "invalid", stood_s / duration_s, STANDSTILL_INVALID, text)
    return Reason("client_standstill", "suspect", longest_ms, suspect_ms, text)


def late_start(evidence: Evidence) -> Reason | None:
    """Judge whether all client processes began when the window did."""
    late_ms, window_ms = evidence.of_client("start_late_ms") or 0.0, (evidence.number("duration_s") or 0.0) * 1e3
    suspect_ms = max(LATE_SUSPECT_MS, LATE_SUSPECT * window_ms)
    invalid_ms = max(LATE_SUSPECT_MS, LATE_INVALID * window_ms)
    text = f"a client process began {late_ms:.0f} ms after the window did; until then its share of the load was missing"
    return Reason.graded("late_start", late_ms, suspect_ms, invalid_ms, text)


def client_cpu(evidence: Evidence) -> Reason | None:
    """Judge how much of its core the client used."""
    share = evidence.of_client("cpu_fraction") or 0.0
    text = f"the load generator used {share:.0%} of its core; give it more processes (load.client_processes)"
    return Reason.graded("client_cpu", share, CPU_SUSPECT, CPU_INVALID, text)


def send_slip(evidence: Evidence) -> Reason | None:
    """Judge how late requests of an open loop were sent."""
    slip_ms = evidence.of_client("send_slip_p99_ms") or 0.0
    text = f"requests were sent {slip_ms:.0f} ms late at p99; compare the latencies from intended send times"
    return Reason.graded("send_slip", slip_ms, SLIP_SUSPECT_MS, SLIP_INVALID_MS, text)


def coalesced_reads(evidence: Evidence) -> Reason | None:
    """Judge how many chunks shared a read."""
    share = evidence.of_client("coalesced_fraction") or 0.0
    if share <= COALESCED_SUSPECT:
        return None
    text = f"{share:.0%} of the chunks came in one read with the chunk before, so their times are not their own"
    return Reason("coalesced_reads", "suspect", share, COALESCED_SUSPECT, text)


def client_limits(evidence: Evidence) -> Reason | None:
    """Judge requests that failed for want of files or ports on the client's side."""
    count, sent = evidence.number("requests_client_limited") or 0.0, evidence.number("requests_sent") or 1.0
    if not count:
        return None
    text = f"{count:.0f} of {sent:.0f} requests found no connection for a limit of the client's (open files, ports)"
    return Reason("client_limit", "suspect", count / sent, 0.0, text)


CHECKS = (loop_lag, client_standstill, late_start, client_cpu, client_limits, send_slip, coalesced_reads)
