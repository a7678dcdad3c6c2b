"""Start the API: `orders-api` or `python -m orders_api`."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import falcon

from orders_api import server
from orders_api.app import create_app
from orders_api.config import ApiConfig
from orders_api.database.notifier import Notifier
from orders_api.database.pool import Database
from schema import revision
from schema.embedded import locate
from schema.runtime import listening, logs, startup
from schema.runtime.signals import StopSignals
from schema.runtime.supervisor import Supervisor

LISTENER = "--listener"
"""How a process is told which file descriptor is the socket that it shares with others."""

_log = logs.Log("orders_api")


def main() -> int:
    """Run until a signal; return the exit status: 0 stopped, 1 can't start, 2 a setting is wrong."""
    if sys.argv[1:2] == [LISTENER] and len(sys.argv) == 3:
        return startup.exit_status(lambda: _serve_beside_others(int(sys.argv[2])))
    startup.refuse_arguments("orders-api", "Serve the order queue's REST API until a signal comes.")
    return startup.exit_status(_serve)


def _serve() -> int:
    stop, config = _begin()
    listener = listening.bind(config.service.host, config.service.port, port_setting="ORDERS_PORT")
    url = locate.resolve(config.database)
    startup.first(url, name="orders-api", work=revision.check)
    started_url = listening.url(*listener.getsockname()[:2])
    if config.processes == 1:
        with _application(config, url) as application:
            listening.listen(listener, port_setting="ORDERS_PORT")
            http_server = server.create(application, listener, stop=stop)
            _log.info("api_started", url=started_url)
            http_server.run(stop, stop_seconds=server.STOP_SECONDS)
    else:
        listening.listen(listener, port_setting="ORDERS_PORT")
        supervisor = _supervisor(listener, count=config.processes, stop=stop)
        _log.info("api_started", url=started_url)
        supervisor.run()
    stop.ignore()
    _log.info("api_stopped")
    return 0


def _supervisor(listener: socket.socket, *, count: int, stop: StopSignals) -> Supervisor:
    command = ("orders_api", LISTENER, str(listener.fileno()))
    # Time to close the pool of connections after the last request.
    kill_seconds = server.STOP_SECONDS + 5
    return Supervisor([command] * count, stop=stop, kill_seconds=kill_seconds, listener=listener)


def _serve_beside_others(descriptor: int) -> int:
    """Be one of several processes that share a socket."""
    stop, config = _begin()
    url = locate.resolve(config.database)
    startup.first(url, name="orders-api", work=revision.check)
    with _application(config, url) as application:
        listener = socket.socket(fileno=descriptor)
        http_server = server.create(application, listener, stop=stop, shared=True)
        http_server.run(stop, stop_seconds=server.STOP_SECONDS)
    stop.ignore()
    return 0


def _begin() -> tuple[StopSignals, ApiConfig]:
    stop = StopSignals()
    stop.install()
    config = ApiConfig.from_environment()
    logs.configure(config.log_format)
    return stop, config


@contextmanager
def _application(config: ApiConfig, url: str) -> Iterator[falcon.App[falcon.Request, falcon.Response]]:
    with Database(url, size=server.THREADS) as database, Notifier(url) as notifier:
        yield create_app(database, notifier.notify, simulated_seconds=config.simulated_seconds)


if __name__ == "__main__":
    sys.exit(main())
