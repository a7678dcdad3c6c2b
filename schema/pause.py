"""Stop and resume claiming, for every worker at once. Orders under way are finished all the same."""

from typing import Any

import psycopg

_PAUSE = """
INSERT INTO queue (paused_at)
VALUES (clock_timestamp())
ON CONFLICT (only_row) DO UPDATE
SET paused_at = COALESCE(queue.paused_at, EXCLUDED.paused_at)
"""

_RESUME = """
UPDATE queue
SET paused_at = NULL
"""


def pause(connection: psycopg.Connection[Any]) -> None:
    """Claim nothing from now on. Every exchange that begins after the commit obeys; pausing twice is fine."""
    connection.execute(_PAUSE)


def resume(connection: psycopg.Connection[Any]) -> None:
    """Claim again."""
    connection.execute(_RESUME)
