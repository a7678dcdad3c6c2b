"""Stop all workers from claiming new orders, and let them claim again. Orders under way are finished."""

from schema.errors import SwitchLockedError
from schema.runtime.connection import Connection

_SWITCH = """
WITH held AS MATERIALIZED (
    SELECT only_row
    FROM queue
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE queue
SET paused_at = CASE WHEN %(pause)s THEN COALESCE(paused_at, clock_timestamp()) END
WHERE only_row = ANY (ARRAY (SELECT only_row FROM held))
"""

_RESTORE = """
INSERT INTO queue (paused_at)
SELECT CASE WHEN %(pause)s THEN clock_timestamp() END
WHERE NOT EXISTS (SELECT FROM queue)
"""


def pause(connection: Connection) -> None:
    """Stop all claims. Every exchange that begins after the commit obeys; pausing twice is fine.

    Raises `SwitchLockedError` when somebody has the switch's row locked.
    """
    _switch(connection, pause=True)


def resume(connection: Connection) -> None:
    """Allow claims again. Raises like `pause`."""
    _switch(connection, pause=False)


def _switch(connection: Connection, *, pause: bool) -> None:
    if not any(connection.execute(sql, {"pause": pause}).rowcount for sql in (_SWITCH, _RESTORE)):
        raise SwitchLockedError
