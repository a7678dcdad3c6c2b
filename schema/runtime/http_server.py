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

from schema.runtime import listening, logs
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

SWEEP_SECONDS = 1.0
"""How often slow clients are looked for, and how long a new one is left in peace when there are too many."""

SLOWEST_BYTES_PER_SECOND = 16 * 1024

_FILES_OF_A_CLIENT = 2  # its connection, and its body when that is too large for memory
_OTHER_FILES = 64
_BACKLOG = 1024
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

_log = logs.Log(__name__)


class HttpServer:
    """Serves a WSGI application on a bound socket, in the thread that calls `serve` or `run`.

    `limits` are waitress's (https://docs.pylonsproject.org/projects/waitress/en/stable/arguments.html): past
    `connection_limit` no client is accepted, and fewer are where the process may open few files; a connection
    that is silent for `channel_timeout` seconds is closed; a body up to `max_request_body_size` bytes is read
    to its end before the application sees the request. A request must arrive within `arrival_seconds`, and a
    second more for each 16 KiB of its body. `takes_body` is called with the method and path of a request that
    has a body: False refuses it by its head, and with None the application answers without the body. `lanes`
    and `lane_of` are those of `Admission`. `error_headers` go with the answer to a request that the
    application never sees. With `shared`, other processes accept clients on the same socket.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listener: socket.socket,
        *,
        lanes: Mapping[str, int],
        lane_of: Callable[[str, int], str | None],
        takes_body: Callable[[str, str], bool | None],
        arrival_seconds: float,
        error_headers: Callable[[], Mapping[str, str]] = dict,
        shared: bool = False,
        **limits: int,
    ) -> None:
        self._closing = threading.Lock()
        self._channels: dict[int, Any] = {}
        self._admission = Admission(lanes, lane_of)
        self._turned_away = 0
        self._tell_at = 0.0
        self._sweep_at = 0.0
        self._arrival_seconds = arrival_seconds
        room = (listening.raise_open_files() - _OTHER_FILES) // _FILES_OF_A_CLIENT
        limits["connection_limit"] = self._connection_limit = max(min(limits["connection_limit"], room), 8)
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
        self._server.adj.takes_body = takes_body
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
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_SECONDS
            self._sweep()

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

    def _sweep(self) -> None:
        """Close clients whose requests do not arrive, and those that ask nothing when room gets scarce."""
        now = time.monotonic()
        quiet = [each for each in self._server.active_channels.values() if each.is_quiet()]
        quiet.sort(key=lambda channel: channel.quiet_since)
        is_scarce = len(self._channels) > self._connection_limit * 9 // 10
        excess = len(self._channels) - self._connection_limit // 2 if is_scarce else 0
        for number, channel in enumerate(quiet):
            pushed_out = number < excess and now - channel.quiet_since > SWEEP_SECONDS
            if pushed_out or channel.is_slow(now, self._arrival_seconds):
                channel.handle_close()

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
        self.has_asked = False
        self.quiet_since = time.monotonic()
        if server.rest_seconds:
            time.sleep(server.rest_seconds)
        super().__init__(server, *arguments, **named)

    def received(self, data: bytes) -> bool:
        """Take bytes of the client's; note when a request begins to arrive."""
        arriving = self.request
        taken = bool(super().received(data))
        if self.request is not arriving:
            self.quiet_since = time.monotonic()
        return taken

    def handle_close(self) -> None:
        """Close the connection, and the file of a body that has arrived in part."""
        if self.request is not None:
            self.request.close()
        super().handle_close()

    def service(self) -> None:
        """Carry out the first request, unless its client has left while it waited."""
        if time.monotonic() - self.waits_since > LEFT_AFTER_SECONDS and self._has_left():
            self.connected = False
            self.server.pull_trigger()
        self.has_asked = True
        super().service()
        self.quiet_since = time.monotonic()

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

    def is_quiet(self) -> bool:
        """Tell whether the client's request has not arrived, and no answer is left to send."""
        return not self.requests and not self.total_outbufs_len

    def is_slow(self, now: float, arrival_seconds: float) -> bool:
        """Tell whether its request, or its first, should have arrived by now."""
        if self.has_asked and self.request is None:
            return False  # waitress closes it when it is silent for `channel_timeout`
        body_bytes = 0 if self.request is None else self.request.body_bytes_received
        return now - self.quiet_since > arrival_seconds + body_bytes / SLOWEST_BYTES_PER_SECOND

    def is_idle(self) -> bool:
        """Tell whether no request has begun to arrive and no answer is left to send."""
        begun = self.request is not None and self.request.header_bytes_received
        return not self.requests and not begun and not self.total_outbufs_len
