"""`GET /healthz` and `GET /readyz` of a worker, for its supervisor."""

import logging
import socket
from collections.abc import Callable

import falcon

from orders_worker.health.reasons import Health, Reason
from schema.runtime import listening, logs, problem
from schema.runtime.http_server import HttpServer
from schema.runtime.problem import Problem

_log = logs.Log(__name__)


class Probes(HttpServer):
    """Answers on a bound socket, at `url`, while the monitor's loop pauses with it.

    No answer waits for anything. Raises a `SettingError` if another process listens on the port by now.
    """

    def __init__(self, listener: socket.socket, health: Health) -> None:
        # It warns when there are too many clients, which says nothing about the worker.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        listening.listen(listener, port_setting="ORDERS_HEALTH_PORT")
        super().__init__(
            _create_app(health),
            listener,
            lanes={"probes": 1},
            lane_of=lambda _path, _length: "probes",
            takes_body=lambda method, _path: False if method in {"GET", "HEAD"} else None,
            arrival_seconds=5,
            connection_limit=100,
            channel_timeout=5,
            max_request_header_size=16 * 1024,
            max_request_body_size=1024,
        )
        self.url = listening.url(*listener.getsockname()[:2])
        _log.info("health_served", url=self.url)

    wait = HttpServer.serve


def _create_app(health: Health) -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App()
    app.set_error_serializer(problem.serialize)
    app.add_route("/healthz", Probe("up", health.stalled))
    app.add_route("/readyz", Probe("ready", health.reasons))
    return app


class Probe:
    """Answers whether there are any `reasons` against a good `status`."""

    def __init__(self, status: str, reasons: Callable[[], list[Reason]]) -> None:
        self._status = status
        self._reasons = reasons

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 with the status, or a 503 problem with every reason why not."""
        reasons = self._reasons()
        if not reasons:
            resp.media = {"status": self._status}
            return
        not_ready = Problem(
            503,
            "; ".join(each.detail for each in reasons),
            title="Not ready",
            type="/problems/not-ready",
            extensions={"reasons": [each.name for each in reasons]},
        )
        problem.answer(resp, not_ready)

    on_head = on_get
