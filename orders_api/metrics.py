"""`GET /metrics` and, as the original service had it, `GET /orders/metrics`."""

import falcon

from orders_api.database import Database
from schema import metrics


class MetricsResource:
    """The queue in numbers. `simulated_seconds` is what an order takes while none has completed."""

    def __init__(self, database: Database, simulated_seconds: float) -> None:
        self._database = database
        self._simulated_seconds = simulated_seconds

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Show the counts of this moment and the times in whole seconds."""
        with self._database.connection() as connection:
            now = metrics.read(connection, simulated_seconds=self._simulated_seconds)
        resp.media = {
            "total_orders": sum(now.counts.values()),
            "status_counts": {f"{status}_orders": count for status, count in now.counts.items()},
            "average_processing_time": now.average_processing_time,
            "estimated_processing_time": now.estimated_processing_time,
            "live_workers": now.live_workers,
            "live_slots": now.live_slots,
            "paused": now.paused,
        }

    on_head = on_get
