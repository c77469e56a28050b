"""Switches the engines' profilers on for a moment in the middle of a load, all replicas at once."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from memgap.loopback import fetch

ANSWER_TIMEOUT_S = 300.0
"""Writing a trace takes an engine some seconds, more under load."""


class ProfileMoment:
    """A thread that asks every server to start its profiler `after_s` into the window, and to stop `seconds` later.

    `requests` is what each server's /start_profile is sent.
    """

    def __init__(
        self, urls: Sequence[str], api_key: str, moment: Mapping[str, float], requests: Sequence[bytes]
    ) -> None:
        self._urls, self._requests = list(urls), list(requests)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._moment = moment
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: str | None = None

    def begin(self) -> None:
        """Count from now."""
        self._thread.start()

    def finish(self) -> None:
        """Return once the traces are written; a moment that has not come yet is given up."""
        self._ended.set()
        if self._thread.ident is None:
            self.error = "the load ended before it began"
        else:
            self._thread.join()

    def _run(self) -> None:
        if self._ended.wait(self._moment["after_s"]):
            self.error = f"the load ended within {self._moment['after_s']:g} s, before the profiler was to start"
            return
        self._ask_all("/start_profile", self._requests)
        time.sleep(self._moment["seconds"])
        self._ask_all("/stop_profile", [b""] * len(self._urls))

    def _ask_all(self, path: str, requests: Sequence[bytes]) -> None:
        with ThreadPoolExecutor(len(self._urls)) as pool:
            list(pool.map(lambda url, body: self._ask(url + path, body), self._urls, requests))

    def _ask(self, url: str, body: bytes) -> None:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            fetch(url, ANSWER_TIMEOUT_S, body=body, headers=headers)
        except OSError as error:
            self.error = f"the engine's profiler does not answer at {url.rpartition('/')[2]}: {error}"
