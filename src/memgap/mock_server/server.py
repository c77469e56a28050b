"""Starts the mock engine, keeps it until a signal comes, and writes the stamps."""

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from memgap.mock_server.engine import Engine
from memgap.mock_server.options import Options
from memgap.mock_server.protocol import App, Connection


def _log(text: str) -> None:
    print(f"INFO {text}", flush=True)


def _fail(*lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    return 1


def run_server(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    The status is 1 where the start fails: on order, for want of KV space, for a port in use.
    """
    faults = options.faults
    if options.spawn_child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        _log(f"child process {child.pid}")
    if faults.fail_start:
        return _fail("RuntimeError: Engine core initialization failed. See root cause above.")
    if faults.oom_start:
        return _fail("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    pool_tokens = options.num_blocks * options.block_size
    if options.max_model_len > pool_tokens:
        return _fail(
            f"ValueError: one request of max_model_len={options.max_model_len} tokens does not fit "
            f"into the KV cache of {pool_tokens} tokens."
        )
    time.sleep(faults.slow_start_s)
    try:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_serve(options))


async def _serve(options: Options) -> int:
    loop = asyncio.get_running_loop()
    app = App(options, Engine(options, loop), loop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ignore if options.faults.hang_on_term else stop.set)
    try:
        server = await loop.create_server(lambda: Connection(app), options.host, options.port, backlog=4096)
    except OSError as error:
        return _fail(f"OSError: cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    port = _port(server.sockets[0])
    pool_tokens = options.num_blocks * options.block_size
    _log(f"GPU KV cache size: {pool_tokens:,} tokens")
    share = pool_tokens / options.max_model_len
    _log(f"Maximum concurrency for {options.max_model_len:,} tokens per request: {share:.2f}x")
    _log(f"Listening on http://{options.host}:{port}")
    _log("Application startup complete.")
    gc.collect()
    gc.freeze()
    await stop.wait()
    server.close()
    for connection in list(app.connections):
        connection.drop()
    if app.stamps is not None:
        app.stamps.write(Path(options.stamp_file))
    _log("Application shutdown complete.")
    return 0


def _ignore() -> None:
    _log("asked to stop; ignored, as ordered")


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
