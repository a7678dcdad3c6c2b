"""`GET /healthz` (this process is up) and `GET /readyz` (it can do its work)."""

import falcon

from orders_api.database.readiness import Readiness


class HealthResource:
    """Whether the process can answer at all: restart it when this fails."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, without a query."""
        resp.media = {"status": "up"}

    on_head = on_get


class ReadinessResource:
    """Whether to send requests here: orders can be stored, in a database that fits this release."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or a 503 problem with the reason."""
        self._readiness.check()
        resp.media = {"status": "ready"}

    on_head = on_get
