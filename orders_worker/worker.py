"""One worker process, assembled: main loop, slots, and the threads beside them."""

import functools
import os
import socket

from orders_worker.attempt.attempt import AttemptSettings
from orders_worker.attempt.pool import HandlerPool
from orders_worker.config import WorkerConfig
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.dispatcher import Dispatcher
from orders_worker.dispatch.exchanger import Exchanger
from orders_worker.dispatch.shutdown import Shutdown
from orders_worker.dispatch.slots import Slots
from orders_worker.handler import Handler
from orders_worker.health.monitor import Monitor
from orders_worker.health.probes import Probes
from orders_worker.health.reasons import Health
from orders_worker.upkeep.heartbeat import Heartbeat
from orders_worker.upkeep.housekeeping import Housekeeping
from schema import __version__
from schema.queue import workers
from schema.queue.workers import Registration
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.signals import StopSignals

EXHAUSTED_STATUS = 3
"""Exit status when as many handlers hang as there are slots: a supervisor should start a fresh process."""

LEFT_BEHIND_STATUS = 4
"""Exit status when it had to leave claims to the rescue, because it could not write their end."""

SIMULATED = "simulated"
"""What the handler is called that only sleeps; each other name has a colon."""

_log = logs.Log(__name__)


def register(connection: Connection, *, config: WorkerConfig) -> Registration:
    """Enter this process as a new worker; its id is on every event of this thread from now on."""
    handler = config.handler or SIMULATED
    registration = workers.register(
        connection,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=config.concurrency,
        lease_seconds=config.lease_seconds,
        handler=handler,
        version=__version__,
    )
    logs.bind(worker_id=registration.worker_id)
    _log.info("worker_registered", slots=config.concurrency, handler=handler, version=__version__)
    return registration


class Worker:
    """Works orders until a signal comes. `registration` is what `register` returned."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        url: str,
        handler: Handler,
        signals: StopSignals,
        registration: Registration,
        listener: socket.socket | None,
    ) -> None:
        self._claims = Claims(registration)
        self._slots = Slots(config.concurrency)
        wake = functools.partial(self._slots.mailbox.put, None)
        signals.call(wake)
        settings = _attempt_settings(config, url=url, handler=handler)
        enter = functools.partial(register, config=config)
        self._exchanger = Exchanger(self._claims, self._slots, url=url, settings=settings, register=enter)
        shutdown = Shutdown(signals, shutdown_seconds=config.shutdown_seconds)
        self._dispatcher = Dispatcher(self._exchanger, shutdown, poll_seconds=config.poll_seconds)
        heartbeat = Heartbeat(self._claims, url, lease_seconds=config.lease_seconds, on_death=wake)
        housekeeping = Housekeeping(url, on_orders=wake, worker_id=self._worker_id)
        health = Health(
            rounds=self._dispatcher.rounds,
            exchange=self._exchanger.watchdog,
            claiming=self._exchanger.claiming,
            heartbeat=heartbeat.watchdog,
            housekeeping=housekeeping.watchdog,
            connections=settings.pool.watchdog,
            schema=housekeeping.schema,
        )
        probes = Probes(listener, health) if listener else None
        monitor = Monitor(health, probes=probes, worker_id=self._worker_id)
        self._loops = (monitor.loop, heartbeat.loop, housekeeping.loop)

    def run(self) -> int:
        """Work until a stop; return the exit status."""
        for loop in self._loops:
            loop.start()
        self._dispatcher.run()
        self._slots.stop()
        for loop in self._loops:
            loop.stop()
        self._exchanger.leave()
        if self._dispatcher.exhausted:
            return EXHAUSTED_STATUS
        if self._claims:
            _log.error("claims_left_to_the_rescue", count=len(self._claims))
            return LEFT_BEHIND_STATUS
        _log.info("worker_stopped")
        return 0

    def _worker_id(self) -> str:
        return self._claims.worker_id


def _attempt_settings(config: WorkerConfig, *, url: str, handler: Handler) -> AttemptSettings:
    pool = HandlerPool(
        url,
        size=config.handler_connections,
        lease_seconds=config.lease_seconds,
        timeout_seconds=config.timeout_seconds,
    )
    return AttemptSettings(
        handler=handler,
        pool=pool,
        max_attempts=config.max_attempts,
        backoff_seconds=config.backoff_seconds,
        timeout_seconds=config.timeout_seconds,
    )
