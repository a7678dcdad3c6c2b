"""The HTTP server as the API uses it: its limits, and problems for requests that it can't read."""

import logging
import socket
from wsgiref.types import WSGIApplication

from orders_api import problems
from schema.runtime.http_server import HttpServer, Limits
from schema.runtime.signals import StopSignals

THREADS = 16
STOP_SECONDS = 10.0

_LIMITS = Limits(
    threads=THREADS,
    # Below the usual 1,024 open files, with room for bodies that are too large for memory.
    connections=800,
    idle_seconds=60,
    header_bytes=64 * 1024,
    # The application refuses an order past 1 MiB and a batch past 8. Up to this size the server reads a body
    # to its end first, so that a client which sends before it reads gets the answer, not a broken connection.
    body_bytes=16 * 1024 * 1024,
)


def create(
    application: WSGIApplication, listener: socket.socket, *, stop: StopSignals, shared: bool = False
) -> HttpServer:
    """Return a server for the application that `stop` wakes. `shared` as for `HttpServer`."""
    logging.getLogger("waitress").setLevel(logging.WARNING)
    # One warning for each request that has to wait for a thread: no news under load, and a flood.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = HttpServer(
        application, listener, limits=_LIMITS, render_error=problems.render_error, shared=shared
    )
    stop.call(server.wake)
    return server
