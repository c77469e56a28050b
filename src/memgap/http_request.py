"""Reads HTTP/1.1 requests as they come in, for this project's own servers: the simulated engine and the router.

Source: RFC 9112, sections 3, 5 and 6. Bodies have a content-length; chunked ones are refused, since no client
here sends them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
_MAX_HEAD_BYTES = 65536
_MAX_BODY_BYTES = 64 * 2**20


class RequestError(Exception):
    """Bytes that are no request that is taken; `status` is what to answer before the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request; names of `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


class RequestReader:
    """Cuts what a connection receives into requests; `write` sends a client the leave that it waits for with a body."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._buffer = b""
        self._head: tuple[str, str, dict[str, str], bool] | None = None
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next request once it is whole. Raises RequestError; what is left then is thrown away."""
        try:
            return self._next()
        except RequestError:
            self._buffer = b""
            raise

    def _next(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise RequestError(431, "the head of the request is too long")
                return None
            self._head, self._size = _read_head(self._buffer[:end])
            self._buffer = self._buffer[end + 4 :]
            waits = self._head[2].get("expect", "").lower() == "100-continue"
            if waits and len(self._buffer) < self._size:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < self._size:
            return None
        method, path, headers, keep_alive = self._head
        body, self._buffer, self._head = self._buffer[: self._size], self._buffer[self._size :], None
        return Request(method, path, headers, body, keep_alive)


def reply_bytes(status: int, body: bytes, content_type: str) -> bytes:
    """Return a whole reply of known length."""
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
    return head.encode("latin-1") + body


def _read_head(head: bytes) -> tuple[tuple[str, str, dict[str, str], bool], int]:
    """Return method, path, headers and whether the connection is kept, and the size of the body in bytes."""
    first, *rest = head.decode("latin-1").split("\r\n")
    line = first.split(" ")
    if len(line) != 3 or not line[2].startswith("HTTP/1."):
        raise RequestError(400, "this is not an HTTP/1.1 request")
    headers: dict[str, str] = {}
    for header in rest:
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise RequestError(411, "send the body with a content-length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RequestError(400, "content-length is not a number")
    if int(length) > _MAX_BODY_BYTES:
        raise RequestError(413, "the body is too long")
    wish = headers.get("connection", "").lower()
    keep_alive = wish != "close" if line[2] == "HTTP/1.1" else wish == "keep-alive"
    return (line[0], line[1], headers, keep_alive), int(length)
