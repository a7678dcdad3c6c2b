"""Set everything up: server, network, and a machine for each process of the product."""

import random
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.database import Database
from tests.chaos.network import Network, Relay
from tests.chaos.processes import Machine, Supervisor
from tests.chaos.scene import Scene
from tests.chaos.settings import ChaosSettings
from tests.pooler import Pooler

DIRECT_SHARE = 0.2
"""How often a process is started with a way to the server past the network's relays."""

LEASE_SECONDS = 10.0
"""The default, which no process here is told."""

POOL_SIZE = 60
"""Room for a transaction of every handler's at once, and for what else workers and APIs do."""

_WORKER = {
    "ORDERS_HANDLER": "tests.chaos.handler:handle",
    "ORDERS_CONCURRENCY": "8",
    "ORDERS_BACKOFF_SECONDS": "0.1",
    "ORDERS_MAX_ATTEMPTS": "100",
}
_WORKERS = {
    "worker-1": {**_WORKER, "ORDERS_TIMEOUT_SECONDS": "4"},
    # Without a limit, so that nothing but the fence stands against what these do after a long stop.
    "worker-2": _WORKER,
    "worker-3": _WORKER,
}


def set_up(settings: ChaosSettings, cleaning: ExitStack) -> tuple[Scene, list[int]]:
    """Start all of it; return where faults happen, and the API's ports. `cleaning` ends and removes it."""
    database = Database()
    cleaning.callback(database.destroy)
    database.start()
    url, socket_path = _way(database, settings, cleaning)
    network = Network()
    cleaning.callback(network.close)
    supervisor = Supervisor(defect=settings.defect, faketime=find_faketime())
    cleaning.callback(supervisor.destroy)
    ports = [_free_port(), _free_port()]
    apis = {f"api-{number}": {"ORDERS_PORT": str(port)} for number, port in enumerate(ports, 1)}
    relays = {name: network.relay(socket_path) for name in (*apis, *_WORKERS)}
    dice = random.Random(f"{settings.seed} ways")
    supervisor.start(
        [
            Machine(
                name,
                "orders_api" if name in apis else "orders_worker",
                _environment(told, url=url, relay=relays[name], dice=dice),
                database.logs / f"{name}.log",
            )
            for name, told in (apis | _WORKERS).items()
        ]
    )
    return Scene(database, supervisor, relays), ports


def _way(database: Database, settings: ChaosSettings, cleaning: ExitStack) -> tuple[str, str]:
    """Return the connection string and the socket by which to reach the server, or a pooler before it."""
    if not settings.pooler:
        return database.url, database.socket_path
    pooler = cleaning.enter_context(Pooler(database.url, default_pool_size=POOL_SIZE))
    return pooler.url, pooler.socket_path


def _environment(
    told: Mapping[str, str], *, url: str, relay: Relay, dice: random.Random
) -> Callable[[], Mapping[str, str]]:
    """Return what gives the process its settings at each start: some go through the network, some direct."""
    return lambda: {**told, "DATABASE_URL": url if dice.random() < DIRECT_SHARE else relay.url(url)}


def find_faketime() -> Path | None:
    """Return the library that makes a process's clock wrong, if this system has it."""
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib"):
        for name in ("libfaketimeMT.so.1", "libfaketime.so.1"):
            for path in (*Path(folder).glob(f"faketime/{name}"), *Path(folder).glob(f"*/faketime/{name}")):
                return path
    return None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
