"""`GET /healthz` (this process is up) and `GET /readyz` (it can do its work)."""

import falcon

from orders_api.database.pool import Database
from schema import revision


class HealthResource:
    """Whether the process can answer at all: restart it when this fails."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, without a query."""
        resp.media = {"status": "up"}

    on_head = on_get


class ReadinessResource:
    """Whether to send requests here: the database answers, and its schema fits this release."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or a 503 problem with the reason."""
        with self._database.connection() as connection:
            revision.check(connection)
        resp.media = {"status": "ready"}

    on_head = on_get
