"""Checks of the server and its machine: was the engine itself what was measured?"""

from memgap.verdict.evidence import Evidence, Reason

API_SERVER_CPU_SUSPECT = 0.9
"""Cores for each API server process, which cannot use more than one."""
TOKENS_PER_CHUNK_SUSPECT = 1.5
"""More tokens share a chunk when the API server falls behind the engine."""
THROTTLED_SUSPECT = 0.05
CLOCK_SUSPECT = 0.9
"""Mean SM clock by the largest one."""
TTFT_GAP_MS, TTFT_GAP_SHARE = 20.0, 0.2
STARVED_SUSPECT, STARVED_LEAST_CAP = 0.85, 16
"""Share of a closed loop's requests that the engine holds in the steady part; small caps leave too few to judge."""
STANDSTILL_INVALID = 0.1
"""Share of the window in one silence."""
E2E_GAP_MS, E2E_GAP_SHARE = 50.0, 0.05
"""How far the client's means may lie above those of the engine's own histograms: the larger of both bounds."""


def api_server_cpu(evidence: Evidence) -> Reason | None:
    """Judge how much of its core the API server used."""
    cores, processes = evidence.number("api_server_cpu_mean_cores"), evidence.api_servers
    if cores is None or cores / processes <= API_SERVER_CPU_SUSPECT:
        return None
    which = "the API server" if processes == 1 else f"each of {processes} API servers"
    text = f"{which} used {cores / processes:.2f} cores on average and may have held the engine's tokens back"
    return Reason("api_server_cpu", "suspect", cores / processes, API_SERVER_CPU_SUSPECT, text)


def held_back(evidence: Evidence) -> Reason | None:
    """Judge how many tokens shared a chunk, beyond those that the server was asked to send together."""
    tokens = evidence.number("tokens_per_chunk_mean")
    bound = TOKENS_PER_CHUNK_SUSPECT * evidence.most_tokens_per_chunk
    if tokens is None or tokens <= bound:
        return None
    text = f"chunks held {tokens:.1f} tokens on average: ITL percentiles are not the engine's, TPOT is"
    return Reason("tokens_per_chunk", "suspect", tokens, bound, text)


def server_standstill(evidence: Evidence) -> Reason | None:
    """Judge whether the server gave no token for a while (`memgap.load.silence`)."""
    silent_s, bound_s = evidence.number("silence_max_s"), evidence.number("silence_bound_s")
    if silent_s is None or bound_s is None:
        return None
    text = f"no token came for {silent_s:.1f} s although requests were being answered; the server stood still"
    duration_s = evidence.number("duration_s") or 0.0
    if duration_s and silent_s / duration_s > STANDSTILL_INVALID:
        return Reason("server_standstill", "invalid", silent_s / duration_s, STANDSTILL_INVALID, text)
    return Reason("server_standstill", "suspect", silent_s, bound_s, text)


def throttled(evidence: Evidence) -> Reason | None:
    """Judge whether heat or power held the GPU's clocks down."""
    share = evidence.number("gpu_throttled_fraction")
    if share is not None and share > THROTTLED_SUSPECT:
        text = f"the GPU was throttled for heat or power in {share:.0%} of the window"
        return Reason("throttled", "suspect", share, THROTTLED_SUSPECT, text)
    clock, most = evidence.number("gpu_sm_clock_mean_mhz"), evidence.hardware.get("gpu_sm_clock_max_mhz")
    if clock is None or not most or clock / most >= CLOCK_SUSPECT:
        return None
    which = "the slowest GPU's" if (evidence.hardware.get("gpu_count") or 1) > 1 else "the GPU's"
    text = f"{which} SM clock was {clock:.0f} MHz on average, {clock / most:.0%} of its largest"
    return Reason("low_clock", "suspect", clock / most, CLOCK_SUSPECT, text)


def foreign_processes(evidence: Evidence) -> Reason | None:
    """Judge whether others used the GPU."""
    count = evidence.number("gpu_foreign_processes_max")
    if not count:
        return None
    text = "another process was on the GPU" if count == 1 else f"{count:.0f} other processes were on the GPU"
    return Reason("foreign_processes", "invalid", count, 0.0, text)


def gpus_elsewhere(evidence: Evidence) -> Reason | None:
    """Judge whether the server has GPUs on other machines, where nothing is read from them."""
    here, every = evidence.hardware.get("gpu_count") or 0, evidence.hardware.get("gpu_count_of_server")
    if not every:
        return None
    text = f"of the server's {every} GPUs {here} are on this machine: memory, power and energy are those of these only"
    return Reason("gpus_elsewhere", "suspect", here, every, text)


def profiled(evidence: Evidence) -> Reason | None:
    """Judge whether a profiler slowed the engine down."""
    if "profile" not in evidence.record.get("server", {}):
        return None
    return Reason("profiled", "invalid", 1.0, 0.0, "a profiler ran: the kernel timeline counts, the rates do not")


def ttft_gap(evidence: Evidence) -> Reason | None:
    """Judge the client's TTFT against the engine's own."""
    return _gap(evidence, "ttft", TTFT_GAP_MS, TTFT_GAP_SHARE)


def e2e_gap(evidence: Evidence) -> Reason | None:
    """Judge the client's end-to-end latency against the engine's own."""
    return _gap(evidence, "e2e", E2E_GAP_MS, E2E_GAP_SHARE)


def starved_engine(evidence: Evidence) -> Reason | None:
    """Judge whether a closed loop's requests were all in the engine: those that neither run nor wait are held up."""
    if evidence.number("prefill_e2e_mean_ms") is not None:
        return None  # what is at a prefill server is in no engine that answers
    running, cap = evidence.number("steady_mean_running_reqs"), evidence.record["load"].get("concurrency")
    waiting = evidence.number("mean_waiting_reqs") or 0.0
    if running is None or not cap or cap < STARVED_LEAST_CAP or (running + waiting) / cap >= STARVED_SUSPECT:
        return None
    text = (
        f"of {cap} requests in flight the engine held {running + waiting:.0f} on average; the others were on their way"
    )
    return Reason("starved_engine", "suspect", (running + waiting) / cap, STARVED_SUSPECT, text)


def _gap(evidence: Evidence, metric: str, least_ms: float, share: float) -> Reason | None:
    client_ms, server_ms = evidence.number(f"{metric}_mean_ms"), evidence.number(f"server_{metric}_mean_ms")
    if client_ms is None or server_ms is None or evidence.number("requests_failed"):
        return None
    if evidence.samples > 1:  # the engine's histogram is over choices, the client's mean over requests
        return None
    server_ms += evidence.number("prefill_e2e_mean_ms") or 0.0  # a server before this one had the request so long
    bound_ms = max(least_ms, share * server_ms)
    if abs(client_ms - server_ms) <= bound_ms:
        return None
    text = f"mean {metric.upper()} is {client_ms:.0f} ms for the client, {server_ms:.0f} ms in the engine's histogram"
    return Reason(f"{metric}_gap", "suspect", client_ms - server_ms, bound_ms, text)


CHECKS = (
    api_server_cpu,
    held_back,
    server_standstill,
    throttled,
    foreign_processes,
    gpus_elsewhere,
    profiled,
    ttft_gap,
    e2e_gap,
    starved_engine,
)
