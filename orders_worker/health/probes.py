"""`GET /healthz` and `GET /readyz` of a worker, for its supervisor."""

import logging
import socket

import falcon

from orders_worker.health.reasons import Health, Reason
from schema.runtime import listening, logs, problem
from schema.runtime.http_server import HttpServer, Limits
from schema.runtime.problem import Problem

_log = logs.Log(__name__)

_LIMITS = Limits(
    threads=1,
    # A client that sends nothing, or a byte a minute, holds a connection for a while and no thread.
    connections=100,
    idle_seconds=5,
    header_bytes=16 * 1024,
    body_bytes=1024,
)


class Probes(HttpServer):
    """Answers on a bound socket, at `url`, while the monitor's loop pauses with it.

    No answer waits for anything. Raises a `SettingError` if another process listens on the port by now.
    """

    def __init__(self, listener: socket.socket, health: Health) -> None:
        # It warns when there are too many clients, which says nothing about the worker.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        listening.listen(listener, port_setting="ORDERS_HEALTH_PORT")
        super().__init__(_create_app(health), listener, limits=_LIMITS, render_error=problem.render_error)
        self.url = listening.url(*listener.getsockname()[:2])
        _log.info("health_served", url=self.url)

    wait = HttpServer.serve


def _create_app(health: Health) -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App()
    app.set_error_serializer(problem.serialize)
    app.add_route("/healthz", HealthResource(health))
    app.add_route("/readyz", ReadinessResource(health))
    return app


class HealthResource:
    """Whether the worker's main loop turns: restart the worker when this fails."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or a 503 problem."""
        stalled = [each for each in self._health.reasons() if each.name == "rounds_stalled"]
        _answer(resp, "up", stalled)

    on_head = on_get


class ReadinessResource:
    """Whether the worker makes progress."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or a 503 problem with every reason."""
        _answer(resp, "ready", self._health.reasons())

    on_head = on_get


def _answer(resp: falcon.Response, status: str, reasons: list[Reason]) -> None:
    if not reasons:
        resp.media = {"status": status}
        return
    not_ready = Problem(
        503,
        "; ".join(each.detail for each in reasons),
        title="Not ready",
        type="/problems/not-ready",
        extensions={"reasons": [each.name for each in reasons]},
    )
    problem.answer(resp, not_ready)
