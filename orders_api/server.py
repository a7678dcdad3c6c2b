"""The HTTP server: waitress with this API's limits, its errors as problems, and a stop that answers."""

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import waitress.channel  # type: ignore[import-untyped]  # waitress has no type hints
import waitress.server  # type: ignore[import-untyped]
import waitress.task  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]

from orders_api import problems, requests
from schema.runtime import listening
from schema.runtime.signals import StopSignals

THREADS = 16
STOP_SECONDS = 10.0

REST_SECONDS = 0.0002
"""How long one of several processes rests when it has taken a client, so that another takes the next. Without
it the first to wake takes all that come at once; while they stay connected the others have nothing to do."""

_BACKLOG = 1024
_LIMITS: dict[str, Any] = {
    "backlog": _BACKLOG,
    "threads": THREADS,
    # Below the usual 1,024 open files, with room for bodies that are too large for memory.
    "connection_limit": 800,
    "channel_timeout": 60,
    # The application refuses a body past 1 MiB. Up to this size it is read to its end first, so that a
    # client which sends before it reads sees the answer and not a broken connection.
    "max_request_body_size": 16 * 1024 * 1024,
    "max_request_header_size": 64 * 1024,
    "ident": None,
    # select() knows no file descriptor past 1,023.
    "asyncore_use_poll": True,
    # A client that hangs up is its own business, not a traceback in our log.
    "log_socket_errors": False,
}


class _Task(waitress.task.WSGITask):  # type: ignore[misc]  # waitress has no type hints
    """One request; while the server stops, its answer asks the client to close."""

    def build_response_header(self) -> bytes:
        if not self.channel.server.accepting:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]  # as above
    """A request that waitress itself refuses (bad syntax, over its limits), answered as a problem."""

    def execute(self) -> None:
        error = self.request.error
        body = problems.Problem(error.code, f"The request can't be read: {error.body}.").body()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", problems.MEDIA_TYPE))
        self.response_headers.append((requests.REQUEST_ID, requests.new_id()))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]  # as above
    """One client's connection."""

    parser_class = listening.Parser
    task_class = _Task
    error_task_class = _ErrorTask

    def is_idle(self) -> bool:
        """Tell whether no request has begun to arrive and no answer is left to send."""
        return not self.requests and self.request is None and not self.total_outbufs_len


def _rested_channel(*arguments: Any, **named: Any) -> _Channel:
    time.sleep(REST_SECONDS)
    return _Channel(*arguments, **named)


class Server:
    """Serves a WSGI application on a bound socket, from the thread that calls `run`, until `stop`.

    The socket may be `shared` with other processes.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        listener: socket.socket,
        *,
        stop: StopSignals,
        shared: bool = False,
    ) -> None:
        logging.getLogger("waitress").setLevel(logging.WARNING)
        # One warning for each request that has to wait: no news under load, and a flood.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._channels: dict[int, Any] = {}
        self._server = waitress.server.create_server(
            application, map=self._channels, sockets=[listener], **_LIMITS
        )
        self._server.channel_class = _rested_channel if shared else _Channel
        # Header and body leave together: two packets an answer cost a tenth of the throughput. Set here,
        # because waitress deprecates the keyword (without it answers are merely slower).
        self._server.adj.send_bytes = 4096
        self._stop = stop
        stop.call(self._server.pull_trigger)

    def run(self) -> None:
        """Serve; after the stop accept nothing more, answer what has arrived, and return.

        Gives up on unfinished requests after `STOP_SECONDS`, or when the stop becomes impatient.
        """
        while not self._stop.requested:
            self._poll(1.0)
        self._stop_accepting()
        give_up_at = time.monotonic() + STOP_SECONDS
        while self._server.active_channels and not self._stop.impatient and time.monotonic() < give_up_at:
            # Read first, then look: what a client has sent by now counts as arrived.
            self._poll(0.05)
            self._close_idle()
        self._server.task_dispatcher.shutdown(timeout=1)

    def _poll(self, seconds: float) -> None:
        waitress.wasyncore.poll2(timeout=seconds, map=self._channels)

    def _stop_accepting(self) -> None:
        # The system has accepted some clients for us already: closing the listener would cut them off.
        waiting = select.poll()
        waiting.register(self._server.socket, select.POLLIN)
        for _ in range(_BACKLOG):
            if not waiting.poll(0):
                break
            self._server.handle_accept()
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()

    def _close_idle(self) -> None:
        for channel in list(self._server.active_channels.values()):
            if channel.is_idle():
                channel.will_close = True  # acted on in the next poll
