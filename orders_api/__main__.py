"""Start the API: `orders-api` or `python -m orders_api`."""

import sys

from orders_api.app import create_app
from orders_api.config import ApiConfig
from orders_api.database import Database
from orders_api.notifier import Notifier
from orders_api.server import THREADS, Server
from schema import listening, logs, revision, startup
from schema.stopping import StopSignals

_log = logs.Log("orders_api")


def main() -> int:
    """Run until a signal; return the exit status: 0 stopped, 1 can't start, 2 a setting is wrong."""
    startup.refuse_arguments("orders-api", "Serve the order queue's REST API until a signal comes.")
    return startup.exit_status(_serve)


def _serve() -> int:
    stop = StopSignals()
    stop.install()
    config = ApiConfig.from_environment()
    logs.configure(config.log_format)
    listener = listening.bind(config.service.host, config.service.port, port_setting="ORDERS_PORT")
    url = config.database.resolve()
    startup.first(url, name="orders-api", work=revision.check)
    with Database(url, size=THREADS) as database, Notifier(url) as notifier:
        app = create_app(database, notifier.notify, simulated_seconds=config.simulated_seconds)
        listening.listen(listener, port_setting="ORDERS_PORT")
        server = Server(app, listener)
        _log.info("api_started", url=server.url)
        server.run(stop)
    stop.ignore()
    _log.info("api_stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
