"""One worker process, assembled: dispatcher, slots, heartbeat, housekeeping and monitor."""

import functools
import os
import socket
from collections.abc import Sequence
from queue import SimpleQueue

from orders_worker.attempt.attempt import AttemptSettings
from orders_worker.attempt.pool import HandlerPool
from orders_worker.config import WorkerConfig
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.dispatcher import Dispatcher
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
from schema.runtime.loop import Loop
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.signals import StopSignals

EXHAUSTED_STATUS = 3
"""Exit status when as many handlers hang as there are slots: a supervisor should start a fresh process."""

LEFT_BEHIND_STATUS = 4
"""Exit status when it had to leave claims to the rescue, because it could not write their end."""

RETRY_CEILING_SECONDS = 2.0
"""The longest pause of the dispatcher between two tries to connect."""

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


def run(
    config: WorkerConfig,
    *,
    url: str,
    handler: Handler,
    signals: StopSignals,
    registration: Registration,
    listener: socket.socket | None,
) -> int:
    """Work orders until a signal comes; return the exit status.

    `registration` is what `register` returned. Probes are answered on `listener`, if there is one.
    """
    claims = Claims(registration)
    mailbox: Mailbox = SimpleQueue()
    signals.call(lambda: mailbox.put(None))
    settings = _settings(config, url=url, handler=handler)
    slots = Slots(config.concurrency, mailbox=mailbox)
    database = Reconnecting(
        functools.partial(Connection.open, url, name="orders-dispatcher"),
        name="dispatcher",
        ceiling_seconds=RETRY_CEILING_SECONDS,
    )
    dispatcher = Dispatcher(
        claims=claims,
        mailbox=mailbox,
        slots=slots,
        settings=settings,
        shutdown=Shutdown(signals, shutdown_seconds=config.shutdown_seconds),
        database=database,
        register=functools.partial(register, config=config),
        poll_seconds=config.poll_seconds,
    )
    heartbeat = _heartbeat(config, url=url, claims=claims, dispatcher=dispatcher)
    housekeeping = _housekeeping(url, claims=claims, mailbox=mailbox)
    health = _health(dispatcher, database, heartbeat=heartbeat, housekeeping=housekeeping, settings=settings)
    probes = Probes(listener, health) if listener else None
    monitor = Monitor(health, probes=probes, worker_id=lambda: claims.worker_id)
    if probes is not None:
        _log.info("health_served", url=probes.url)
    _work_on(dispatcher, slots, beside=(monitor.loop, heartbeat.loop, housekeeping.loop))
    return _status(dispatcher, left_behind=len(claims))


def _work_on(dispatcher: Dispatcher, slots: Slots, *, beside: Sequence[Loop]) -> None:
    for loop in beside:
        loop.start()
    dispatcher.run()
    slots.stop()
    for loop in beside:
        loop.stop()
    dispatcher.leave()


def _heartbeat(config: WorkerConfig, *, url: str, claims: Claims, dispatcher: Dispatcher) -> Heartbeat:
    return Heartbeat(
        claims=claims,
        connect=functools.partial(Connection.open, url, name="orders-heartbeat", reply_seconds=3),
        lease_seconds=config.lease_seconds,
        on_death=dispatcher.declare_dead,
    )


def _housekeeping(url: str, *, claims: Claims, mailbox: Mailbox) -> Housekeeping:
    return Housekeeping(
        connect=functools.partial(Connection.open, url, name="orders-housekeeping"),
        on_orders=lambda: mailbox.put(None),
        worker_id=lambda: claims.worker_id,
    )


def _health(
    dispatcher: Dispatcher,
    database: Reconnecting,
    *,
    heartbeat: Heartbeat,
    housekeeping: Housekeeping,
    settings: AttemptSettings,
) -> Health:
    return Health(
        rounds=dispatcher.rounds,
        exchange=database.watchdog,
        claiming=dispatcher.claiming,
        heartbeat=heartbeat.watchdog,
        housekeeping=housekeeping.watchdog,
        connections=settings.pool.watchdog,
        schema=housekeeping.schema,
    )


def _settings(config: WorkerConfig, *, url: str, handler: Handler) -> AttemptSettings:
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


def _status(dispatcher: Dispatcher, *, left_behind: int) -> int:
    if dispatcher.exhausted:
        return EXHAUSTED_STATUS
    if left_behind:
        _log.error("claims_left_to_the_rescue", count=left_behind)
        return LEFT_BEHIND_STATUS
    _log.info("worker_stopped")
    return 0
