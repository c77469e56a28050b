"""Takes HTTP/1.1 replies apart, piece by piece as they were read."""


class ReplyError(Exception):
    """Bytes that are not an HTTP/1.1 reply."""


class ReplyDecoder:
    """Decodes one reply: status line, headers, then a body that is chunked, of known length, or ends with the
    connection. Feed it every read in order; it keeps what is incomplete.

    Source: RFC 9112, sections 4, 6 and 7.
    """

    _MAX_HEAD_BYTES = 65536

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.head_complete = False
        self.complete = False
        self.chunked = False
        self.until_close = False
        self.keep_alive = True
        self.surplus = b""
        self._buffer = b""
        self._left = 0
        self._in_chunk = False
        self._in_trailer = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of body that `data` holds.

        Raises ReplyError for bytes that break the rules. Bytes after the end are kept in `surplus`.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if self.complete:
            self.surplus += data
            return []
        while not self.head_complete:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > self._MAX_HEAD_BYTES:
                    raise ReplyError("the head of the reply has no end")
                self._buffer = data
                return []
            self._read_head(data[:end])
            data = data[end + 4 :]
        if self.chunked:
            return self._feed_chunked(data)
        if self.until_close:
            return [data] if data else []
        return self._feed_length(data)

    def _read_head(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
            raise ReplyError(f"{lines[0][:80]!r} is not the first line of an HTTP/1.1 reply")
        status = int(code)
        if status < 200:
            return
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.status = status
        self.headers = headers
        self.head_complete = True
        wish = {one.strip() for one in headers.get("connection", "").lower().split(",")}
        self.keep_alive = "close" not in wish and (version != "HTTP/1.0" or "keep-alive" in wish)
        length = headers.get("content-length")
        if headers.get("transfer-encoding", "").lower().endswith("chunked"):
            self.chunked = True
        elif length is not None:
            said = {one.strip() for one in length.split(",")}
            if len(said) != 1 or not (length.isascii() and min(said).isdigit()):
                raise ReplyError(f"content-length is {length[:40]!r}")
            self._left = int(min(said))
            self.complete = self._left == 0
        elif status in (204, 304):
            self.complete = True
        else:
            self.until_close = True
            self.keep_alive = False

    def _feed_length(self, data: bytes) -> list[bytes]:
        piece, self.surplus = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self.complete = self._left == 0
        return [piece] if piece else []

    def _feed_chunked(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._in_chunk:
                if self._left:
                    piece = data[at : at + self._left]
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    if self._left:
                        break
                if size - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise ReplyError("a chunk is longer than its size says")
                at += 2
                self._in_chunk = False
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > self._MAX_HEAD_BYTES:
                    raise ReplyError("a chunk size line has no end")
                break
            line = data[at:end]
            at = end + 2
            if self._in_trailer:
                if not line:
                    self.complete = True
                    self.surplus = data[at:]
                    return pieces
                continue
            digits = line.partition(b";")[0].strip()
            try:
                self._left = int(digits, 16)
            except ValueError:
                self._left = -1
            if self._left < 0 or not digits.isalnum():
                raise ReplyError(f"{line[:40]!r} is not a chunk size")
            if self._left:
                self._in_chunk = True
            else:
                self._in_trailer = True
        self._buffer = data[at:]
        return pieces
