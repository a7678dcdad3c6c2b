"""One worker process, assembled: main loop, slots, and the threads beside them."""

import functools
import os
import socket
from collections.abc import Callable
from queue import SimpleQueue

from orders_worker.attempt.attempt import AttemptSettings
from orders_worker.attempt.pool import HandlerPool
from orders_worker.config import WorkerConfig
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.dispatcher import Dispatcher
from orders_worker.dispatch.exchanger import Exchanger
from orders_worker.dispatch.finished import Finished
from orders_worker.dispatch.shutdown import Shutdown
from orders_worker.dispatch.slots import Mailbox, Slots
from orders_worker.handler import Handler
from orders_worker.health.monitor import Monitor
from orders_worker.health.probes import Probes
from orders_worker.health.reasons import Health
from orders_worker.upkeep.heartbeat import Heartbeat
from orders_worker.upkeep.housekeeping import Housekeeping
from schema.queue import workers
from schema.queue.workers import Registration
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.signals import StopSignals

EXHAUSTED_STATUS = 3
"""Exit status when as many handlers hang as there are slots: a supervisor should start a fresh process."""

LEFT_BEHIND_STATUS = 4
"""Exit status when it had to leave claims to the rescue, because it could not write their end."""

RETRY_CEILING_SECONDS = 2.0
"""The longest pause of the main loop between two tries to connect."""

_log = logs.Log(__name__)


def register(connection: Connection, *, config: WorkerConfig) -> Registration:
    """Enter this process as a new worker; its id is on every event of this thread from now on."""
    registration = workers.register(
        connection,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=config.concurrency,
        lease_seconds=config.lease_seconds,
    )
    logs.bind(worker_id=registration.worker_id)
    _log.info("worker_registered", slots=config.concurrency)
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
        self._config = config
        self._connect = functools.partial(Connection.open, url)
        self._claims = Claims(registration)
        self._finished = Finished(self._claims)
        self._mailbox: Mailbox = SimpleQueue()
        signals.call(self._wake)
        self._slots = Slots(config.concurrency, mailbox=self._mailbox)
        self._settings = _attempt_settings(config, url=url, handler=handler)
        self._database = Reconnecting(
            self._connecting("orders-dispatcher"), name="dispatcher", ceiling_seconds=RETRY_CEILING_SECONDS
        )
        self._exchanger = self._make_exchanger()
        self._dispatcher = self._make_dispatcher(signals)
        self._heartbeat = Heartbeat(
            claims=self._claims,
            connect=self._connecting("orders-heartbeat", reply_seconds=3),
            lease_seconds=config.lease_seconds,
            on_death=self._dispatcher.declare_dead,
        )
        self._housekeeping = Housekeeping(
            connect=self._connecting("orders-housekeeping"), on_orders=self._wake, worker_id=self._worker_id
        )
        health = self._health()
        self._probes = Probes(listener, health) if listener else None
        self._monitor = Monitor(health, probes=self._probes, worker_id=self._worker_id)

    def run(self) -> int:
        """Work until a stop; return the exit status."""
        if self._probes is not None:
            _log.info("health_served", url=self._probes.url)
        loops = (self._monitor.loop, self._heartbeat.loop, self._housekeeping.loop)
        for loop in loops:
            loop.start()
        self._dispatcher.run()
        self._slots.stop()
        for loop in loops:
            loop.stop()
        self._exchanger.leave()
        return self._status()

    def _status(self) -> int:
        if self._dispatcher.exhausted:
            return EXHAUSTED_STATUS
        if self._claims:
            _log.error("claims_left_to_the_rescue", count=len(self._claims))
            return LEFT_BEHIND_STATUS
        _log.info("worker_stopped")
        return 0

    def _wake(self) -> None:
        """Let the dispatcher look around. Any thread may call it."""
        self._mailbox.put(None)

    def _worker_id(self) -> str:
        return self._claims.worker_id

    def _connecting(self, name: str, **options: float) -> Callable[[], Connection]:
        return functools.partial(self._connect, name=name, **options)

    def _make_exchanger(self) -> Exchanger:
        return Exchanger(
            claims=self._claims,
            finished=self._finished,
            slots=self._slots,
            settings=self._settings,
            database=self._database,
            register=functools.partial(register, config=self._config),
        )

    def _make_dispatcher(self, signals: StopSignals) -> Dispatcher:
        return Dispatcher(
            claims=self._claims,
            finished=self._finished,
            mailbox=self._mailbox,
            slots=self._slots,
            exchanger=self._exchanger,
            shutdown=Shutdown(signals, shutdown_seconds=self._config.shutdown_seconds),
            database=self._database,
            poll_seconds=self._config.poll_seconds,
        )

    def _health(self) -> Health:
        return Health(
            rounds=self._dispatcher.rounds,
            exchange=self._database.watchdog,
            claiming=self._exchanger.claiming,
            heartbeat=self._heartbeat.watchdog,
            housekeeping=self._housekeeping.watchdog,
            connections=self._settings.pool.watchdog,
            schema=self._housekeeping.schema,
        )


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
        probe=functools.partial(Connection.open, url, name="orders-handler"),
        max_attempts=config.max_attempts,
        backoff_seconds=config.backoff_seconds,
        timeout_seconds=config.timeout_seconds,
    )
