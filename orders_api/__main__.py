"""Start the API: `orders-api` or `python -m orders_api`."""

import socket
import sys

from orders_api import server
from orders_api.app import create_app
from orders_api.config import ApiConfig
from orders_api.database.notifier import Notifier
from orders_api.database.pool import Database
from schema import revision
from schema.embedded import locate
from schema.runtime import listening, logs, startup
from schema.runtime.signals import StopSignals, show_stacks
from schema.runtime.supervisor import Supervisor

LISTENER = "--listener"
"""How a process is told which file descriptor is the socket that it shares with others."""

_log = logs.Log("orders_api")


def main() -> int:
    """Run until a signal; return the exit status: 0 stopped, 1 can't start, 2 a setting is wrong."""
    if sys.argv[1:2] == [LISTENER] and len(sys.argv) == 3:
        return startup.exit_status(lambda: _main(socket.socket(fileno=int(sys.argv[2]))))
    startup.refuse_arguments("orders-api", "Serve the order queue's REST API until a signal comes.")
    return startup.exit_status(_main)


def _main(shared: socket.socket | None = None) -> int:
    """Serve until a signal; with `shared`, as one of several processes that the first one supervises."""
    show_stacks()
    stop = StopSignals()
    stop.install()
    config = ApiConfig.from_environment()
    logs.configure(config.log_format, level=config.log_level)
    if not shared:
        startup.report_unknown_settings()
    listener = shared or listening.bind(config.host, config.port, port_setting="ORDERS_PORT")
    url = locate.resolve(config.database_url)
    startup.first(url, name="orders-api", work=revision.check)
    if shared:
        _serve(config, url, listener=shared, stop=stop, shared=True)
        stop.ignore()
        return 0
    listening.listen(listener, port_setting="ORDERS_PORT")
    if config.processes == 1:
        _serve(config, url, listener=listener, stop=stop)
    else:
        _supervise(listener, count=config.processes, stop=stop)
    stop.ignore()
    _log.info("api_stopped")
    return 0


def _serve(
    config: ApiConfig, url: str, *, listener: socket.socket, stop: StopSignals, shared: bool = False
) -> None:
    with Database(url, size=server.THREADS) as database, Notifier(url) as notifier:
        application = create_app(database, notifier.notify, simulated_seconds=config.simulated_seconds)
        http_server = server.create(application, listener, stop=stop, shared=shared)
        if not shared:
            _log_start(listener)
        http_server.run(stop, stop_seconds=server.STOP_SECONDS)


def _supervise(listener: socket.socket, *, count: int, stop: StopSignals) -> None:
    command = ("orders_api", LISTENER, str(listener.fileno()))
    # Time to close the pool of connections after the last request.
    kill_seconds = server.STOP_SECONDS + 5
    supervisor = Supervisor([command] * count, stop=stop, kill_seconds=kill_seconds, listener=listener)
    _log_start(listener)
    supervisor.run()


def _log_start(listener: socket.socket) -> None:
    _log.info("api_started", url=listening.url(*listener.getsockname()[:2]))


if __name__ == "__main__":
    sys.exit(main())
