"""A free TCP port on 127.0.0.1, found by binding it."""

import socket

from memgap.errors import UserError


def free_port() -> int:
    """Return a port that was free a moment ago; a server that still finds it taken has to ask again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, where: str) -> int:
    """Return `port`; raises UserError where something listens on it already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"{where}: port {port} on 127.0.0.1 is in use by another program; "
                "free it, or leave the port out and a free one is taken."
            ) from error
    return port
