"""The API as one WSGI application: every route on one page, given what the routes depend on."""

from collections.abc import Callable

import falcon

from orders_api import problems
from orders_api.database.placing import Placing
from orders_api.database.pool import Database
from orders_api.database.readiness import Readiness
from orders_api.database.showing import Showing
from orders_api.requests import RequestId
from orders_api.resources.health import HealthResource, ReadinessResource
from orders_api.resources.metrics import MetricsResource
from orders_api.resources.orders import BatchResource, OrderResource, OrdersResource


def create_app(
    database: Database, on_commit: Callable[[], None], *, simulated_seconds: float
) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the application. `on_commit` is called after each commit of new orders and must not block."""
    app = falcon.App(middleware=[RequestId()])
    problems.install(app)
    placing = Placing(database, on_commit)
    metrics = MetricsResource(database, simulated_seconds)
    app.add_route("/orders", OrdersResource(placing))
    app.add_route("/orders/batch", BatchResource(placing))
    app.add_route("/orders/{order_id}", OrderResource(Showing(database)))
    app.add_route("/orders/metrics", metrics)
    app.add_route("/metrics", metrics)
    app.add_route("/healthz", HealthResource())
    app.add_route("/readyz", ReadinessResource(Readiness(database)))
    return app
