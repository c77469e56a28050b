"""What is asked of the load generator and what it gives back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError

Arrival = Literal["closed", "poisson", "constant", "gamma", "ramp", "bursts", "trace", "all-at-once"]
ThinkTime = Literal["fixed", "exponential"]
Balance = Literal["round-robin", "least-outstanding"]
Endpoint = Literal["completions", "chat"]
PromptForm = Literal["token-ids", "text"]
Status = Literal[
    "ok",
    "http_error",
    "timeout",
    "broken_stream",
    "malformed",
    "refused",
    "client_limit",
    "short",
    "aborted",
    "not_sent",
]
StoppedBy = Literal["requests", "seconds", "interval"]
ENDED = ("stop", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence", "end_turn")
CUT = ("length", "max_tokens")
"""Finish reasons, in the words of several servers: the model ended its reply, or a bound on its length did."""
TokenSource = Literal["token_ids", "usage", "text", "none", "mixed"]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How requests are sent.

    `concurrency` is the number of requests in flight of a closed loop; with another arrival it is a cap, and
    a request that finds no place waits for one (None: no cap). `rate_req_s` is needed for poisson, constant,
    gamma and ramp, which ends at `rate_end_req_s`; bursts are `burst_requests` at once every `burst_every_s`; a
    trace has its own times. `think_time_s` is the pause (or its mean) between a reply and the same worker's next
    request in a closed loop, and between the turns of a conversation in any. `max_consecutive_refused` refused
    connections in a row end the run. `balance` says which of several servers a request goes to: each in turn, or
    the one with the fewest requests in flight. Without `extensions` requests hold what OpenAI's interface has and
    nothing else, so that lengths are bounds and not set; without `token_ids` a stream is not asked for the ids of its
    tokens. `samples` choices are asked for of each prompt. Without `stream` a reply comes whole, and nothing is known
    of its first token. `prompt_form` says what prompts were made.

    With `seconds` a closed loop sends no more requests after that time, nor after `least_seconds` once the 95 %
    interval of its steady throughput is within `interval_fraction` of its mean; but not before `min_requests` have
    ended, and never more than `requests`. What is in flight then is waited for. Raises UserError where a value makes no
    sense.
    """

    model: str
    arrival: Arrival
    requests: int
    concurrency: int | None = None
    rate_req_s: float | None = None
    burstiness: float = 1.0
    endpoint: Endpoint = "completions"
    temperature: float = 0.0
    ignore_eos: bool = True
    request_timeout_s: float = 600.0
    warmup_requests: int = 0
    seed: int = 0
    max_consecutive_refused: int = 8
    balance: Balance = "round-robin"
    rate_end_req_s: float | None = None
    burst_requests: int | None = None
    burst_every_s: float | None = None
    think_time_s: float = 0.0
    think_time: ThinkTime = "fixed"
    extensions: bool = True
    token_ids: bool = True
    seconds: float | None = None
    least_seconds: float | None = None
    interval_fraction: float | None = None
    min_requests: int | None = None
    samples: int = 1
    stream: bool = True
    prompt_form: PromptForm = "token-ids"
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.arrival not in get_args(Arrival):
            raise UserError(f"load.arrival is {self.arrival!r}; use one of {', '.join(get_args(Arrival))}.")
        if self.endpoint not in get_args(Endpoint):
            raise UserError(f"load.endpoint is {self.endpoint!r}; use one of {', '.join(get_args(Endpoint))}.")
        if self.balance not in get_args(Balance):
            raise UserError(f"load.balance is {self.balance!r}; use one of {', '.join(get_args(Balance))}.")
        _at_least("requests", self.requests, 1)
        _at_least("warmup_requests", self.warmup_requests, 0)
        _at_least("samples", self.samples, 1)
        _at_least("max_consecutive_refused", self.max_consecutive_refused, 1)
        if self.concurrency is not None:
            _at_least("concurrency", self.concurrency, 1)
        elif self.arrival == "closed":
            raise UserError("load.concurrency is missing; arrival 'closed' needs a number of at least 1.")
        if self.arrival == "ramp":
            if self.rate_end_req_s is None:
                raise UserError("load.rate_end_req_s is missing; arrival 'ramp' needs the rate at the end.")
            _positive("rate_end_req_s", self.rate_end_req_s)
        if self.arrival == "bursts":
            if self.burst_requests is None or self.burst_every_s is None:
                raise UserError("arrival 'bursts' needs load.burst_requests and load.burst_every_s.")
            _at_least("burst_requests", self.burst_requests, 1)
            _positive("burst_every_s", self.burst_every_s)
        if self.think_time not in get_args(ThinkTime):
            raise UserError(f"load.think_time is {self.think_time!r}; use one of {', '.join(get_args(ThinkTime))}.")
        if not (math.isfinite(self.think_time_s) and self.think_time_s >= 0):
            raise UserError(f"load.think_time_s is {self.think_time_s}; give 0 or more.")
        if self.arrival in ("poisson", "constant", "gamma", "ramp"):
            if self.rate_req_s is None:
                raise UserError(f"load.rate_req_s is missing; arrival {self.arrival!r} needs requests per second.")
            _positive("rate_req_s", self.rate_req_s)
        self._check_seconds()
        _positive("burstiness", self.burstiness)
        _positive("request_timeout_s", self.request_timeout_s)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"load.temperature is {self.temperature}; give 0 or more.")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UserError("the API key holds characters that an HTTP header cannot carry; use printable ASCII.")

    def _check_seconds(self) -> None:
        if self.seconds is None:
            for name in ("least_seconds", "interval_fraction", "min_requests"):
                if getattr(self, name) is not None:
                    raise UserError(f"load.{name} needs load.seconds.")
            return
        if self.arrival != "closed":
            raise UserError(f"load.seconds is for a closed loop; load.arrival is {self.arrival!r}.")
        _positive("seconds", self.seconds)
        if self.min_requests is not None:
            _at_least("min_requests", self.min_requests, 1)
        if self.least_seconds is not None:
            _positive("least_seconds", self.least_seconds)
        if self.interval_fraction is not None:
            _positive("interval_fraction", self.interval_fraction)

    @classmethod
    def from_record(cls, load: Mapping[str, Any], model: str, api_key: str | None = None) -> "LoadPlan":
        """Return the plan of a point record's `load`, for the model name that the server serves.

        Raises UserError for a key that no plan has, a missing key and a bad value.
        """
        known = {one.name for one in fields(cls)} - {"model", "extensions", "token_ids", "api_key"}
        unknown = sorted(set(load) - known)
        if unknown:
            raise UserError(f"load.{unknown[0]} is unknown; known are {', '.join(sorted(known))}.")
        for name in ("arrival", "requests"):
            if name not in load:
                raise UserError(f"load.{name} is missing.")
        return cls(model=model, api_key=api_key, **load)


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"load.{name} is {value!r}; give a whole number of at least {least}.")


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"load.{name} is {value}; give a number above 0.")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's input, as token ids or as text (exactly one of them), and the output tokens asked for.

    `prompt_tokens` is how many tokens a text stands for, None where that is not known. Requests of one `conversation`
    follow one another, each after the reply to the one before; `group` is any number that results are to be split by,
    such as the part of a mixed workload.
    """

    output_tokens: int
    token_ids: Sequence[int] | None = None
    text: str | None = None
    conversation: int | None = None
    group: int | None = None
    prompt_tokens: int | None = None

    @property
    def asked_tokens(self) -> int | None:
        """How many prompt tokens are asked for, None where that is not known."""
        return self.prompt_tokens if self.token_ids is None else len(self.token_ids)

    def __post_init__(self) -> None:
        """Check that there is one input and that an output is asked for."""
        if (self.token_ids is None) == (self.text is None):
            raise UserError("a prompt needs either token_ids or text, and not both.")
        if self.token_ids is not None and len(self.token_ids) == 0:
            raise UserError("a prompt's token_ids are empty; give at least one token.")
        if self.output_tokens < 1:
            raise UserError(f"a prompt asks for {self.output_tokens} output tokens; ask for at least 1.")


@dataclass(slots=True)
class RequestResult:
    """What became of one request.

    Times are seconds since the window start, None where the moment never came. `intended_s` is None in a
    closed loop. `sent_s` is when the client began to send, connecting included. `first_token_s` and
    `last_token_s` are arrivals of chunks with at least one new token, `first_text_s` of the first with text that a user
    sees and `first_answer_s` of the first that is not a model's reasoning; `end_s` is the end of the reply or of
    the attempt. `chunks` counts the SSE events with JSON. `output_tokens_seen` is counted from the stream,
    `output_tokens_server` is the server's own final count; both are of all choices, as `output_tokens_asked` is.
    `choices` is how many gave a token. Of several choices `decode_s` is the sum of their times from first to last
    token, and `first_token_s` and `last_token_s` are those of all.

    Status: ok; http_error (status other than 200); timeout; broken_stream (the connection or the stream ended early, or
    the server reported an error in it); malformed (an event that is not JSON, or a reply that is not HTTP); refused (no
    connection); client_limit (no connection, for want of files or ports on the client's side); short (fewer tokens than
    asked for, although the end of text was to be ignored or by a limit of the server's); aborted (in flight when the
    run was ended); not_sent (the run was ended before).
    """

    index: int
    server_index: int
    intended_s: float | None = None
    sent_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    prompt_tokens_asked: int | None = None
    prompt_tokens_server: int | None = None
    output_tokens_asked: int = 0
    output_tokens_server: int | None = None
    output_tokens_seen: int = 0
    chunks: int = 0
    status: Status = "not_sent"
    http_status: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    conversation: int | None = None
    group: int | None = None
    first_text_s: float | None = None
    first_answer_s: float | None = None
    choices: int = 0
    decode_s: float | None = None

    @property
    def tpot_s(self) -> float | None:
        """The time of an output token after its choice's first one; None where no choice has a second token."""
        gaps = self.output_tokens - max(self.choices, 1)
        if self.first_token_s is None or self.last_token_s is None or gaps < 1:
            return None
        return (self.last_token_s - self.first_token_s if self.decode_s is None else self.decode_s) / gaps

    @property
    def prompt_tokens(self) -> int:
        """The server's count of prompt tokens, or else those asked for."""
        return self.prompt_tokens_server or self.prompt_tokens_asked or 0

    @property
    def output_tokens(self) -> int:
        """The server's count of output tokens, or else the client's."""
        return self.output_tokens_seen if self.output_tokens_server is None else self.output_tokens_server


@dataclass(frozen=True, slots=True)
class TokenEvents:
    """One row a received event with at least one new token, grouped by request and choice and in order of time within
    them.

    `request` int32 (index of the request), `time_s` float64 (since the window start), `tokens` int32, `choice` int32
    (index of the choice, None where each request has one); equal lengths.
    """

    request: NDArray[np.int32]
    time_s: NDArray[np.float64]
    tokens: NDArray[np.int32]
    choice: NDArray[np.int32] | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name, without what is not there."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: column for name, column in found.items() if column is not None}

    @property
    def stream(self) -> NDArray[np.int64]:
        """A number for each request and choice, the same for its events and no others."""
        request = self.request.astype(np.int64)
        return request if self.choice is None else (request << 16) + self.choice


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether the client itself kept up; values since the window start.

    Loop lag: how late a timer of the client's loop fired, sampled every 10 ms. Send slip: real minus intended send
    time, or minus the moment a capped request found its place (None in a closed loop). `cpu_fraction` is the CPU time
    of this process by the duration: 1 is one core. `reads` are socket reads; `coalesced_fraction` is the share of token
    chunks that arrived in one read with an earlier chunk of their request. `skipped_events` told nothing of tokens. Of
    several client processes lags, slips and the CPU share are the worst one's, counts are summed.
    """

    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    cpu_fraction: float
    send_slip_p99_ms: float | None
    send_slip_max_ms: float | None
    reads: int
    chunks: int
    tokens: int
    coalesced_fraction: float
    loop: str
    processes: int = 1
    skipped_events: int = 0
    standstill_s: float = 0.0
    start_late_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Everything one run of the load gave.

    The window starts after the warm-up, at `start_unix_s` (time.time()) and `start_monotonic_s`
    (time.monotonic()), and ends `duration_s` later with the end of the last request. `ended_early` says why
    not all requests were tried.
    """

    results: list[RequestResult]
    events: TokenEvents
    warmup: list[RequestResult]
    start_unix_s: float
    start_monotonic_s: float
    duration_s: float
    token_source: TokenSource
    health: ClientHealth
    ended_early: str | None = None
    stopped_by: StoppedBy | None = None
