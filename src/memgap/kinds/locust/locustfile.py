"""The load of one point as a Locust file: `python -m locust -f locustfile.py` in Locust's own environment.

It knows Python's standard library and Locust, and nothing of memgap. MEMGAP_LOCUST_JOB names a folder with `job.json`
(`path`, `bodies`: JSON objects to POST, `picks`: which of them each request takes, `stream`, `timeout_s`,
`think_time_s`, `most_refused`); MEMGAP_LOCUST_API_KEY holds the server's key. All users take the requests
of one list in turn, and Locust quits after the last one. `rows.jsonl` gets a head and then one line a finished request,
`end.json` what is known at the end; times are of the monotonic clock in ns.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
import locust
import requests
from gevent.timeout import Timeout
from locust import HttpUser, constant, events, task
from locust.env import Environment
from locust.exception import StopUser

LAG_PERIOD_S = 0.01
CSV_WRITTEN_S = 1.5
"""Locust writes its CSV files once a second and not when it quits: it is given time for the last request."""
MESSAGE_CHARS = 300
BROKEN_OFF = ("abort", "aborted", "error", "cancelled", "canceled", "timeout", "content_filter")
"""Finish reasons of a reply that is not whole."""


class Run:
    """The list of requests, and what has become of each."""

    def __init__(self, folder: Path, key: str | None) -> None:
        self.job: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.ended_early: str | None = None
        self.quitting = False
        self._folder = folder
        self._rows = (folder / "rows.jsonl").open("w", encoding="utf-8", buffering=1)
        self._next = self._in_flight = self._refused = 0
        self._lags_s: list[float] = []
        self._cpu_start_s = self._cpu_end_s = 0.0
        self._start_ns = self._end_ns = 0

    def begin(self, environment: Environment) -> None:
        """Count from now."""
        self.environment = environment
        self._cpu_start_s, self._start_ns = time.process_time(), time.monotonic_ns()
        head = {"start_ns": self._start_ns, "start_unix_s": time.time(), "locust": locust.__version__}
        self._rows.write(json.dumps(head) + "\n")
        gevent.spawn(self._watch_lag)

    def take(self) -> int | None:
        """Return the number of the next request; None where there is none."""
        if self._next == len(self.job["picks"]) or self.ended_early:
            return None
        self._next += 1
        self._in_flight += 1
        return self._next - 1

    def done(self, row: dict[str, Any]) -> None:
        """Keep what became of a request; the last one ends the run, and so do too many refused connections in a row."""
        self._rows.write(json.dumps(row) + "\n")
        self._in_flight -= 1
        self._refused = self._refused + 1 if row["status"] in ("refused", "client_limit") else 0
        if self._refused >= self.job["most_refused"] and not self.ended_early:
            self.ended_early = f"{self._refused} connections in a row could not be made; the last: {row['error']}"
        over = self._next == len(self.job["picks"]) or self.ended_early
        if over and not self._in_flight and not self.quitting:
            self.quitting = True
            self._cpu_end_s, self._end_ns = time.process_time(), time.monotonic_ns()
            gevent.spawn(self._quit)

    def _quit(self) -> None:
        gevent.sleep(CSV_WRITTEN_S)
        lags_s = sorted(self._lags_s) or [0.0]
        end = {
            "end_ns": self._end_ns,
            "cpu_s": self._cpu_end_s - self._cpu_start_s,
            "loop_lag_p99_ms": lags_s[int(0.99 * (len(lags_s) - 1))] * 1e3,
            "loop_lag_max_ms": lags_s[-1] * 1e3,
            "ended_early": self.ended_early,
        }
        (self._folder / "end.json").write_text(json.dumps(end), encoding="utf-8")
        self.environment.runner.quit()

    def _watch_lag(self) -> None:
        due_s = time.monotonic() + LAG_PERIOD_S
        while not self.quitting:
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            self._lags_s.append(max(0.0, now_s - due_s))
            due_s = now_s + LAG_PERIOD_S


RUN = Run(Path(os.environ["MEMGAP_LOCUST_JOB"]), os.environ.get("MEMGAP_LOCUST_API_KEY"))


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Open the window, before the first user is spawned."""
    RUN.begin(environment)


class Asker(HttpUser):
    """A user who asks, reads the whole answer and asks again."""

    wait_time = constant(RUN.job["think_time_s"])

    def on_start(self) -> None:
        """Go straight to the server: no proxy and no password of the environment belongs to it."""
        self.client.trust_env = False

    @task
    def ask(self) -> None:
        """Send the next request of the list."""
        index = RUN.take()
        if index is None:
            raise StopUser
        row: dict[str, Any] = {"index": index, "status": "ok", "error": None, "times_ns": [], "tokens": []}
        timer = Timeout(RUN.job["timeout_s"])
        timer.start()
        row["sent_ns"] = time.monotonic_ns()
        try:
            self._exchange(RUN.job["bodies"][RUN.job["picks"][index]], row)
        except Timeout as hit:
            if hit is not timer:
                raise
            row["end_ns"] = time.monotonic_ns()
            fail(row, "timeout", f"no whole reply within {RUN.job['timeout_s']:g} s")
            self._report("POST", row["end_ns"] - row["sent_ns"], TimeoutError(row["error"]))
        finally:
            timer.close()
            RUN.done(row)

    def _exchange(self, body: dict[str, Any], row: dict[str, Any]) -> None:
        path = RUN.job["path"]
        stream = RUN.job["stream"]
        with self.client.post(
            path, json=body, headers=RUN.headers, name=path, stream=stream, catch_response=True
        ) as response:
            row["headers_ns"] = time.monotonic_ns()
            row["default_ms"] = response.request_meta["response_time"]
            row["http_status"] = response.status_code or None
            try:
                self._read(response, row)
            except Timeout:
                response.close()
                raise
            except (requests.RequestException, OSError) as error:
                fail(row, "broken_stream", str(error))
            row["end_ns"] = time.monotonic_ns()
            if stream:
                response.request_meta["response_time"] = (row["end_ns"] - row["sent_ns"]) / 1e6
            if row["status"] not in ("ok", "short"):
                response.failure(row["error"])
        if row["status"] == "ok" and "first_text_ns" in row:
            self._report("TTFT", row["first_text_ns"] - row["sent_ns"], None)

    def _report(self, kind: str, span_ns: int, error: Exception | None) -> None:
        """Give Locust's statistics an entry that is no request by its HTTP client."""
        self.environment.events.request.fire(
            request_type=kind,
            name=RUN.job["path"],
            response_time=span_ns / 1e6,
            response_length=0,
            exception=error,
            context={},
        )

    def _read(self, response: Any, row: dict[str, Any]) -> None:
        if response.status_code == 0:
            fail(row, *unanswered(response.error))
        elif response.status_code != 200:
            fail(row, "http_error", f"HTTP {response.status_code}: {response.text[:MESSAGE_CHARS]}")
        elif RUN.job["stream"]:
            read_events(response.iter_lines(), row)
        else:
            read_whole(response.content, row)


def fail(row: dict[str, Any], status: str, error: str) -> None:
    """Note how a request failed; the first reason stays."""
    if row["status"] == "ok":
        row["status"], row["error"] = status, error[:MESSAGE_CHARS]


def unanswered(error: Any) -> tuple[str, str]:
    """Return the status of a request without any answer, and a sentence."""
    if isinstance(error, requests.Timeout):
        return "timeout", str(error)
    text = str(error)
    if any(said in text for said in ("Too many open files", "Cannot assign requested address")):
        return "client_limit", text
    gone = "NewConnectionError" in text or "Connection refused" in text
    return ("refused" if gone else "broken_stream"), text


def read_events(lines: Any, row: dict[str, Any]) -> None:
    """Read server-sent events: the first one with text is the first token, and [DONE] has to come."""
    done = False
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        now_ns = time.monotonic_ns()
        data = line[5:].strip()
        if not data:
            continue
        if data == b"[DONE]":
            done = True
            continue
        row["chunks"] = row.get("chunks", 0) + 1
        try:
            event = json.loads(data)
            note_event(event, now_ns, row)
        except (ValueError, KeyError, TypeError, AttributeError):
            return fail(row, "malformed", f"an event is not as the API has it: {data[:80]!r}")
    if not done:
        return fail(row, "broken_stream", "the stream ended without [DONE]")
    return check_length(row)


def note_event(event: dict[str, Any], now_ns: int, row: dict[str, Any]) -> None:
    """Take over what one event says."""
    if event.get("error"):
        return fail(row, "broken_stream", f"the server reported an error in the stream: {event['error']}")
    note_usage(event.get("usage"), row)
    for choice in (event.get("choices") or ())[:1]:
        text = choice.get("text") or (choice.get("delta") or {}).get("content")
        number = len(choice.get("token_ids") or ()) or int(bool(text))
        if text and "first_text_ns" not in row:
            row["first_text_ns"] = now_ns
        if number:
            row["times_ns"].append(now_ns)
            row["tokens"].append(number)
        row["finish_reason"] = choice.get("finish_reason") or row.get("finish_reason")
    return None


def note_usage(usage: Any, row: dict[str, Any]) -> None:
    """Take over the counts of tokens that are there."""
    for ours, theirs in (("prompt_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        count = usage.get(theirs) if isinstance(usage, dict) else None
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            row[ours] = count


def read_whole(body: bytes, row: dict[str, Any]) -> None:
    """Read a reply that came in one piece."""
    try:
        answer = json.loads(body)
        note_usage(answer["usage"], row)
        row["output_tokens"]  # a reply in one piece has no other count
        row["finish_reason"] = answer["choices"][0].get("finish_reason")
    except (ValueError, KeyError, TypeError, IndexError):
        return fail(row, "malformed", f"the reply is not as the API has it: {body[:80]!r}")
    return check_length(row)


def check_length(row: dict[str, Any]) -> None:
    """Note a reply that was broken off, or is shorter than asked for though the end of text was to be ignored."""
    body = RUN.job["bodies"][RUN.job["picks"][row["index"]]]
    came = row.get("output_tokens") or sum(row["tokens"])
    reason = row.get("finish_reason")
    if came < body["max_tokens"] and str(reason).lower() in BROKEN_OFF:
        fail(row, "broken_stream", f"the server ended the reply with finish reason {reason!r} after {came} tokens")
    if came == 0 or (body.get("ignore_eos") and came < body["max_tokens"]):
        fail(row, "short", f"{came} of {body['max_tokens']} tokens came")
