"""The truth about token times: when the mock handed each token to its connection."""

import io
from array import array
from pathlib import Path

import numpy as np

from memgap.store.atomic import write_bytes


class Stamps:
    """Collects one row a token; written once, at exit."""

    def __init__(self) -> None:
        self._time_ns = array("q")
        self._request = array("i")
        self._token = array("i")
        self._request_ids: list[str] = []

    def name(self, number: int, request_id: str) -> None:
        """Give the `number`th request (counted from 0, in order) the id that its client chose."""
        assert number == len(self._request_ids)
        self._request_ids.append(request_id)

    def add(self, number: int, first: int, count: int, time_ns: int) -> None:
        """Record that `count` tokens of a request from token `first` on were written at `time_ns`."""
        for index in range(first, first + count):
            self._time_ns.append(time_ns)
            self._request.append(number)
            self._token.append(index)

    def write(self, path: Path) -> None:
        """Write arrays time_ns (int64, monotonic), request (int32, row of request_id), token (int32),
        request_id (text)."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            time_ns=np.asarray(self._time_ns, dtype=np.int64),
            request=np.asarray(self._request, dtype=np.int32),
            token=np.asarray(self._token, dtype=np.int32),
            request_id=np.asarray(self._request_ids, dtype=np.str_),
        )
        write_bytes(path, buffer.getvalue())
