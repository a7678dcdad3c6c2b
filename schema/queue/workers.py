"""A worker process's row: it registers, beats to renew its lease, and leaves."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schema.runtime.connection import Connection


@dataclass(frozen=True, slots=True)
class Registration:
    """Who a worker is. `at` is the database's time: no claim of this worker is older."""

    worker_id: str
    at: datetime


HANDLER_LENGTH = 255
"""How many characters of its handler's name a worker's row has."""

_REGISTER = """
INSERT INTO workers (worker_id, host, pid, slots, lease_seconds, handler, version, oldest_claim_at)
VALUES (%(worker_id)s, %(host)s, %(pid)s, %(slots)s, %(lease_seconds)s, %(handler)s, %(version)s,
        clock_timestamp())
RETURNING oldest_claim_at
"""


def register(
    connection: Connection,
    *,
    host: str,
    pid: int,
    slots: int,
    lease_seconds: float,
    handler: str,
    version: str,
) -> Registration:
    """Insert a new worker under an id that is unique to this start.

    `handler` is what it calls for each order (a longer name than `HANDLER_LENGTH` is cut), `version` this
    project's.
    """
    worker_id = f"{host[:40]}-{pid}-{secrets.token_hex(6)}"
    (at,) = connection.one(
        _REGISTER,
        {
            "worker_id": worker_id,
            "host": host,
            "pid": pid,
            "slots": slots,
            "lease_seconds": lease_seconds,
            "handler": handler[:HANDLER_LENGTH],
            "version": version,
        },
    )
    return Registration(worker_id, at)


_HOLD_SESSION = """
WITH key AS MATERIALIZED (
    SELECT hashtextextended(%(worker_id)s, 0) AS key
)
UPDATE workers
SET session_key = key,
    session_lost_at = NULL
FROM key
WHERE worker_id = %(worker_id)s
  AND pg_try_advisory_lock(key)
"""


def hold_session(connection: Connection, worker_id: str) -> bool:
    """Show by a session lock that the worker lives as long as `connection` does.

    Only for a direct connection that stays open: the lock becomes free when it ends, a sign of death. Returns
    False while an earlier session of the worker, which the server has not ended yet, holds the lock.
    """
    return connection.execute(_HOLD_SESSION, {"worker_id": worker_id}).rowcount == 1


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat learned: whether the worker counts as alive, and which claims to cancel.

    `renewed` is false while somebody has the worker's row locked: beat again soon.
    """

    alive: bool
    renewed: bool
    cancel_requested: frozenset[UUID]


_BEAT = """
WITH held AS MATERIALIZED (
    SELECT worker_id
    FROM workers
    WHERE worker_id = %(worker_id)s
      AND dead_at IS NULL
    FOR NO KEY UPDATE SKIP LOCKED
),
beaten AS (
    UPDATE workers
    SET heartbeat_at = clock_timestamp(),
        oldest_claim_at = GREATEST(oldest_claim_at, %(oldest_claim_at)s::timestamptz),
        session_lost_at = NULL
    WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM held))
    RETURNING worker_id
)
SELECT EXISTS (SELECT FROM workers WHERE worker_id = %(worker_id)s AND dead_at IS NULL),
       EXISTS (SELECT FROM beaten),
       ARRAY (
           SELECT order_id
           FROM orders
           WHERE order_id = ANY (ARRAY (SELECT unnest(%(held)s::uuid[])))
             AND worker_id = %(worker_id)s
             AND cancel_requested_at IS NOT NULL)
"""


def beat(connection: Connection, worker_id: str, *, held: Sequence[UUID], oldest_claim_at: datetime) -> Beat:
    """Renew the lease, unless the worker was declared dead: that is final.

    `held` are the orders that it works on; none was claimed before `oldest_claim_at`.
    """
    alive, renewed, cancel_requested = connection.one(
        _BEAT, {"worker_id": worker_id, "held": list(held), "oldest_claim_at": oldest_claim_at}
    )
    return Beat(alive=alive, renewed=renewed, cancel_requested=frozenset(cancel_requested))


_LEAVE = """
UPDATE workers
SET dead_at = COALESCE(dead_at, clock_timestamp())
WHERE worker_id = %(worker_id)s
"""


def leave(connection: Connection, worker_id: str) -> None:
    """Mark the worker as ended at its own request. What it still holds is rescued like a dead worker's."""
    connection.execute(_LEAVE, {"worker_id": worker_id})


_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT worker_id
    FROM workers
    WHERE swept_at < clock_timestamp() - INTERVAL '1 day'
    LIMIT 100
    FOR UPDATE SKIP LOCKED
)
DELETE FROM workers
WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM old))
"""


def prune(connection: Connection) -> int:
    """Delete up to 100 workers that have been dead for a day and hold nothing; return how many."""
    return connection.execute(_PRUNE).rowcount
