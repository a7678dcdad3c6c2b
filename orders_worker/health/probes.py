"""`GET /healthz` and `GET /readyz` of a worker, for whoever supervises it."""

import json
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import waitress.channel  # type: ignore[import-untyped]  # waitress has no type hints
import waitress.server  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]

from orders_worker.health.reasons import Health, Reason
from schema.runtime import listening

Answer = tuple[str, str, dict[str, Any]]
"""Status line, media type and JSON document."""

_LIMITS: dict[str, Any] = {
    "threads": 1,
    # A client that sends nothing, or a byte a minute, holds a connection for a while and no thread.
    "connection_limit": 100,
    "channel_timeout": 5,
    "cleanup_interval": 5,
    "max_request_body_size": 1024,
    "max_request_header_size": 16 * 1024,
    "ident": None,
    "asyncore_use_poll": True,
    "log_socket_errors": False,
}


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]  # waitress has no type hints
    """One client's connection."""

    parser_class = listening.Parser


class Probes:
    """Answers on a bound socket while a thread calls `wait`.

    Raises a `SettingError` if another listens on the port by now.
    """

    def __init__(self, listener: socket.socket, health: Health) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._health = health
        self._channels: dict[int, Any] = {}
        listening.listen(listener, port_setting="ORDERS_HEALTH_PORT")
        self._server = waitress.server.create_server(
            self._application, map=self._channels, sockets=[listener], **_LIMITS
        )
        self._server.channel_class = _Channel
        self.url = listening.url(*listener.getsockname()[:2])

    def wait(self, seconds: float) -> None:
        """Answer requests until something came, `wake` was called, or the time is over."""
        waitress.wasyncore.poll2(timeout=seconds, map=self._channels)

    def wake(self) -> None:
        """End `wait`, from any thread."""
        self._server.pull_trigger()

    def close(self) -> None:
        """Hang up."""
        self._server.task_dispatcher.shutdown(timeout=1)
        waitress.wasyncore.close_all(self._channels)

    def _application(
        self, environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        status, media_type, document = self._answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        body = json.dumps(document).encode()
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        # waitress sends whatever it is given, and a client takes that for the beginning of the next answer.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, method: str, path: str) -> Answer:
        if path not in {"/healthz", "/readyz"}:
            return _problem(
                404, "Not Found", detail="Nothing lives at this address: try /healthz or /readyz."
            )
        if method not in {"GET", "HEAD"}:
            return _problem(405, "Method Not Allowed", detail="This address answers GET and HEAD only.")
        reasons = self._health.reasons()
        if path == "/healthz":
            reasons = [each for each in reasons if each.name == "rounds_stalled"]
        if reasons:
            return _not_ready(reasons)
        return "200 OK", "application/json", {"status": "up" if path == "/healthz" else "ready"}


def _not_ready(reasons: list[Reason]) -> Answer:
    detail = "; ".join(each.detail for each in reasons)
    status, media_type, document = _problem(503, "Not ready", detail=detail, kind="/problems/not-ready")
    return status, media_type, {**document, "reasons": [each.name for each in reasons]}


def _problem(status: int, title: str, *, detail: str, kind: str = "about:blank") -> Answer:
    """Build an answer of RFC 9457."""
    document = {"type": kind, "title": title, "status": status, "detail": detail}
    return f"{status} {title}", "application/problem+json", document
