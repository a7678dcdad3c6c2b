"""The HTTP server as the API uses it: its limits, and what its stop and its log are."""

import logging
import socket
from wsgiref.types import WSGIApplication

from orders_api.requests import REQUEST_ID, new_id
from schema.runtime.http_server import HttpServer
from schema.runtime.signals import StopSignals

LANES = {"work": 13, "large": 2, "readiness": 1}
"""The threads for each kind of request. A large body takes many times its size while it is read: few are read
at a time, and they keep no thread from other requests. The readiness probe waits for none of them."""

THREADS = sum(LANES.values())
LARGE_BYTES = 256 * 1024
STOP_SECONDS = 10.0

_WITH_BODY = {"/orders", "/orders/batch"}


def create(
    application: WSGIApplication, listener: socket.socket, *, stop: StopSignals, shared: bool = False
) -> HttpServer:
    """Return a server for the application that `stop` wakes. `shared` as for `HttpServer`."""
    logging.getLogger("waitress").setLevel(logging.WARNING)
    # One warning for each request that has to wait for a thread: no news under load, and a flood.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = HttpServer(
        application,
        listener,
        error_headers=lambda: {REQUEST_ID: new_id()},
        shared=shared,
        lanes=LANES,
        lane_of=_lane,
        takes_body=_takes_body,
        arrival_seconds=10,
        connection_limit=800,
        channel_timeout=60,
        max_request_header_size=64 * 1024,
        # The application refuses an order past 1 MiB and a batch past 8. Up to this size the server reads a
        # body to its end first, so that a client which sends before it reads gets the answer, not a broken
        # connection.
        max_request_body_size=16 * 1024 * 1024,
    )
    stop.call(server.wake)
    return server


def _takes_body(method: str, path: str) -> bool | None:
    if method in {"GET", "HEAD"}:
        return False
    # None: the application says that there is no such address or method.
    return True if method == "POST" and path in _WITH_BODY else None


def _lane(path: str, length: int) -> str | None:
    if path == "/healthz":
        return None  # It needs no database, and says that this very thread is alive.
    if path == "/readyz":
        return "readiness"
    return "large" if length > LARGE_BYTES else "work"
