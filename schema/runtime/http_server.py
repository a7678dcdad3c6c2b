"""The one HTTP server: waitress with limits, problems for answers to bad requests, and a graceful stop."""

import contextvars
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from wsgiref.types import WSGIApplication

import waitress.channel  # type: ignore[import-untyped]  # waitress has no type hints
import waitress.server  # type: ignore[import-untyped]
import waitress.task  # type: ignore[import-untyped]
import waitress.utilities  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]

from schema.runtime import logs
from schema.runtime.admission import Admission
from schema.runtime.framing import Parser
from schema.runtime.problem import Problem
from schema.runtime.signals import StopSignals

REST_SECONDS = 0.0002
"""How long a process that shares its socket pauses when it has accepted a client, so that another accepts the
next. Without the pause the first process to wake takes every client that connects at that moment. While these
stay connected, the other processes have nothing to do."""

LEFT_AFTER_SECONDS = 0.05
"""How long a request waits before the end of its client's stream means that the client has gone. Some clients
end their stream right after a request and then read the answer."""

TELL_SECONDS = 10.0
"""How often the log tells at most that requests are turned away."""

_BACKLOG = 1024
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

_log = logs.Log(__name__)


class HttpServer:
    """Serves a WSGI application on a bound socket, in the thread that calls `serve` or `run`.

    `limits` are waitress's (https://docs.pylonsproject.org/projects/waitress/en/stable/arguments.html): past
    `connection_limit` no client is accepted, each takes a file descriptor; a connection that is silent for
    `channel_timeout` seconds is closed; a body up to `max_request_body_size` bytes is read to its end before
    the application sees the request. `lanes` and `lane_of` are those of `Admission`. `error_headers` go with
    the answer to a request that the application never sees. With `shared`, other processes accept clients on
    the same socket.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listener: socket.socket,
        *,
        lanes: Mapping[str, int],
        lane_of: Callable[[str, int], str | None],
        error_headers: Callable[[], Mapping[str, str]] = dict,
        shared: bool = False,
        **limits: int,
    ) -> None:
        self._closing = threading.Lock()
        self._channels: dict[int, Any] = {}
        self._admission = Admission(lanes, lane_of)
        self._turned_away = 0
        self._tell_at = 0.0
        self._server = waitress.server.create_server(
            application,
            _dispatcher=self._admission,
            map=self._channels,
            sockets=[listener],
            backlog=_BACKLOG,
            cleanup_interval=min(limits["channel_timeout"], 30),
            ident=None,
            # select() knows no file descriptor past 1,023.
            asyncore_use_poll=True,
            # A client that hangs up is its own business, not a traceback in our log.
            log_socket_errors=False,
            **limits,
        )
        self._server.channel_class = _Channel
        self._server.error_headers = error_headers
        self._server.rest_seconds = REST_SECONDS if shared else 0.0
        # Header and body leave together: two packets an answer cost a tenth of the throughput. Set here,
        # because waitress deprecates the keyword (without it answers are merely slower).
        self._server.adj.send_bytes = 4096

    def serve(self, seconds: float) -> None:
        """Serve until something happens, `wake` is called or the time is over."""
        waitress.wasyncore.poll2(timeout=seconds, map=self._channels)
        for channel in self._admission.take_refused():
            channel.turn_away()
            self._turned_away += 1
        for channel in self._admission.take_at_once():
            contextvars.copy_context().run(channel.service)  # What it binds for the log is its own.
        if self._turned_away and time.monotonic() >= self._tell_at:
            _log.warning("requests_turned_away", count=self._turned_away)
            self._turned_away, self._tell_at = 0, time.monotonic() + TELL_SECONDS

    def wake(self) -> None:
        """End `serve`, from any thread and at any time."""
        with self._closing:
            if self._channels:  # else its file descriptor is closed, and may be another file's by now
                self._server.pull_trigger()

    def run(self, stop: StopSignals, *, stop_seconds: float) -> None:
        """Serve until `stop`; then accept no more clients, answer the requests that have arrived, and close.

        Gives up on unfinished requests after `stop_seconds`, or when the stop becomes impatient. `stop` must
        call `wake`.
        """
        while not stop.requested:
            self.serve(1.0)
        self._stop_accepting()
        give_up_at = time.monotonic() + stop_seconds
        while self._server.active_channels and not stop.impatient and time.monotonic() < give_up_at:
            # Read before the check: what a client has sent by now counts as arrived.
            self.serve(0.05)
            for channel in list(self._server.active_channels.values()):
                if channel.is_idle():
                    channel.will_close = True  # the next `serve` closes it
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._admission.shutdown(seconds=1)
        with self._closing:
            waitress.wasyncore.close_all(self._channels)

    def _stop_accepting(self) -> None:
        # The kernel has accepted some clients already: to close the listener first would cut them off.
        waiting = select.poll()
        waiting.register(self._server.socket, select.POLLIN)
        for _ in range(_BACKLOG):
            if not waiting.poll(0):
                break
            self._server.handle_accept()
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()


class _Task(waitress.task.WSGITask):  # type: ignore[misc]  # as above
    """One request. While the server stops, its answer asks the client to close the connection."""

    def build_response_header(self) -> bytes:
        if not self.channel.server.accepting:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _TurnedAway(waitress.utilities.Error):  # type: ignore[misc]  # as above
    """More requests wait than can be answered in time."""

    code = 503
    reason = "Service Unavailable"


class _ErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]  # as above
    """A request that the application never sees: bad syntax, over the limits, or one too many."""

    def execute(self) -> None:
        error = self.request.error
        problem = Problem(error.code, f"The request can't be read: {error.body}.")
        if isinstance(error, _TurnedAway):
            problem = Problem(
                error.code, error.body, title="Overloaded", type="/problems/overloaded", retry=True
            )
        body = problem.body()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [*problem.headers().items(), *self.channel.server.error_headers().items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]  # as above
    """One client's connection."""

    parser_class = Parser
    task_class = _Task
    error_task_class = _ErrorTask
    waits_since = 0.0

    def __init__(self, server: Any, *arguments: Any, **named: Any) -> None:
        if server.rest_seconds:
            time.sleep(server.rest_seconds)
        super().__init__(server, *arguments, **named)

    def service(self) -> None:
        """Carry out the first request, unless its client has left while it waited."""
        if time.monotonic() - self.waits_since > LEFT_AFTER_SECONDS and self._has_left():
            self.connected = False
            self.server.pull_trigger()
        super().service()

    def turn_away(self) -> None:
        """Answer that the first request is one too many, and close."""
        self.requests[0].error = _TurnedAway(
            "More requests wait than can be answered soon. Nothing was changed."
        )
        super().service()

    def _has_left(self) -> bool:
        descriptor = self._fileno
        if descriptor is None:
            return True
        client = select.poll()
        client.register(descriptor, _GONE)
        return bool(client.poll(0))

    def is_idle(self) -> bool:
        """Tell whether no request has begun to arrive and no answer is left to send."""
        begun = self.request is not None and self.request.header_bytes_received
        return not self.requests and not begun and not self.total_outbufs_len
