"""The one HTTP server: waitress with limits, problems for answers to bad requests, and a graceful stop."""

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIApplication

import waitress.channel  # type: ignore[import-untyped]  # waitress has no type hints
import waitress.parser  # type: ignore[import-untyped]
import waitress.server  # type: ignore[import-untyped]
import waitress.task  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]

from schema.runtime.signals import StopSignals

REST_SECONDS = 0.0002
"""How long a process that shares its socket pauses when it has accepted a client, so that another accepts the
next. Without the pause the first process to wake takes every client that connects at that moment. While these
stay connected, the other processes have nothing to do."""

_BACKLOG = 1024
_CLEANUP_SECONDS = 30

ErrorRenderer = Callable[[int, str], tuple[Mapping[str, str], bytes]]
"""Renders the answer to a request that waitress can't take: status and reason in, headers and body out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use: sizes in bytes, `idle_seconds` until a silent connection is closed.

    `threads` run the application. Past `connections` no client is accepted; each takes a file descriptor.
    A body up to `body_bytes` is read to its end before the application sees the request.
    """

    threads: int
    connections: int
    idle_seconds: int
    header_bytes: int
    body_bytes: int


class HttpServer:
    """Serves a WSGI application on a bound socket, in the thread that calls `serve` or `run`.

    With `shared`, other processes accept clients on the same socket.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listener: socket.socket,
        *,
        limits: Limits,
        render_error: ErrorRenderer,
        shared: bool = False,
    ) -> None:
        self._render_error = render_error
        self._shared = shared
        self._closing = threading.Lock()
        self._channels: dict[int, Any] = {}
        self._server = waitress.server.create_server(
            application, map=self._channels, sockets=[listener], **_adjustments(limits)
        )
        self._server.channel_class = self._open_channel
        # Header and body leave together: two packets an answer cost a tenth of the throughput. Set here,
        # because waitress deprecates the keyword (without it answers are merely slower).
        self._server.adj.send_bytes = 4096

    def serve(self, seconds: float) -> None:
        """Serve until something happens, `wake` is called or the time is over."""
        waitress.wasyncore.poll2(timeout=seconds, map=self._channels)

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
            self._close_idle()
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._server.task_dispatcher.shutdown(timeout=1)
        with self._closing:
            waitress.wasyncore.close_all(self._channels)

    def _open_channel(self, *arguments: Any, **named: Any) -> "_Channel":
        if self._shared:
            time.sleep(REST_SECONDS)
        return _Channel(*arguments, **named, render_error=self._render_error)

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

    def _close_idle(self) -> None:
        for channel in list(self._server.active_channels.values()):
            if channel.is_idle():
                channel.will_close = True  # the next `serve` closes it


def _adjustments(limits: Limits) -> dict[str, Any]:
    return {
        "backlog": _BACKLOG,
        "threads": limits.threads,
        "connection_limit": limits.connections,
        "channel_timeout": limits.idle_seconds,
        "cleanup_interval": min(limits.idle_seconds, _CLEANUP_SECONDS),
        "max_request_header_size": limits.header_bytes,
        "max_request_body_size": limits.body_bytes,
        "ident": None,
        # select() knows no file descriptor past 1,023.
        "asyncore_use_poll": True,
        # A client that hangs up is its own business, not a traceback in our log.
        "log_socket_errors": False,
    }


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]  # waitress has no type hints
    """A request's head. What Python can't convert in it is bad syntax too, not an error of ours."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a length of 5,000 digits, http://[
            raise waitress.parser.ParsingError("a number or the address in its head is wrong") from error


class _Task(waitress.task.WSGITask):  # type: ignore[misc]  # as above
    """One request. While the server stops, its answer asks the client to close the connection."""

    def build_response_header(self) -> bytes:
        if not self.channel.server.accepting:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(waitress.task.ErrorTask):  # type: ignore[misc]  # as above
    """A request that waitress itself can't take: bad syntax, or over its limits."""

    def execute(self) -> None:
        error = self.request.error
        headers, body = self.channel.render_error(error.code, error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend(headers.items())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]  # as above
    """One client's connection."""

    parser_class = _Parser
    task_class = _Task
    error_task_class = _ErrorTask

    def __init__(self, *arguments: Any, render_error: ErrorRenderer, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.render_error = render_error

    def is_idle(self) -> bool:
        """Tell whether no request has begun to arrive and no answer is left to send."""
        return not self.requests and self.request is None and not self.total_outbufs_len
