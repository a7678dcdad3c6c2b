"""The API as one WSGI application, given what it depends on."""

from collections.abc import Callable

import falcon

from orders_api import problems
from orders_api.database.placing import Entrance
from orders_api.database.pool import Database
from orders_api.database.showing import Lookup
from orders_api.requests import RequestId
from orders_api.resources.health import HealthResource, ReadinessResource
from orders_api.resources.metrics import MetricsResource
from orders_api.resources.orders import BatchResource, OrderResource, OrdersResource


def create_app(
    database: Database, submitted: Callable[[], None], *, simulated_seconds: float
) -> falcon.App[falcon.Request, falcon.Response]:
    """Build the application. `submitted` is called after each order's commit and must not block."""
    app = falcon.App(middleware=[RequestId()])
    problems.install(app)
    metrics = MetricsResource(database, simulated_seconds)
    app.add_route("/orders", OrdersResource(database, Entrance(database), submitted))
    app.add_route("/orders/batch", BatchResource(database, submitted))
    app.add_route("/orders/{order_id}", OrderResource(Lookup(database)))
    app.add_route("/orders/metrics", metrics)
    app.add_route("/metrics", metrics)
    app.add_route("/healthz", HealthResource())
    app.add_route("/readyz", ReadinessResource(database))
    return app
