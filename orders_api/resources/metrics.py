"""`GET /metrics`, and the original service's `GET /orders/metrics`."""

from dataclasses import asdict

import falcon

from orders_api.database.pool import Database
from schema.reports import metrics
from schema.reports.metrics import Percentiles


class MetricsResource:
    """The queue in numbers. An order is assumed to take `simulated_seconds` while none has completed."""

    def __init__(self, database: Database, simulated_seconds: float) -> None:
        self._database = database
        self._simulated_seconds = simulated_seconds

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Show the counts of this moment. The original service's two times are whole seconds."""
        with self._database.connection() as connection:
            now = metrics.read(connection, simulated_seconds=self._simulated_seconds)
        resp.media = {
            "total_orders": sum(now.counts.values()),
            "status_counts": {f"{status}_orders": count for status, count in now.counts.items()},
            "average_processing_time": now.average_processing_time,
            "estimated_processing_time": now.estimated_processing_time,
            "arrivals_per_second": _rounded(now.arrival_rate),
            "completions_per_second": _rounded(now.completion_rate),
            "wait_seconds": _percentiles(now.wait),
            "processing_seconds": _percentiles(now.processing),
            "oldest_pending_seconds": now.oldest_pending_seconds,
            "live_workers": now.live_workers,
            "live_slots": now.live_slots,
            "live_handlers": [asdict(each) for each in now.live_handlers],
            "paused": now.paused,
        }

    on_head = on_get


def _percentiles(sample: Percentiles) -> dict[str, float | None]:
    return {"p50": _rounded(sample.p50), "p95": _rounded(sample.p95), "p99": _rounded(sample.p99)}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
