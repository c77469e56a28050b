"""What a server's failure is for the points that needed it."""


class ServerFailureError(Exception):
    """The server did not become ready, or died. `kind` is what a point records; `log_tail` the end of its log."""

    def __init__(self, kind: str, message: str, log_tail: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail
