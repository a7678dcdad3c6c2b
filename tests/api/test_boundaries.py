import http.client
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from itertools import count, takewhile
from typing import Any

import pytest

from schema.runtime.connection import Connection
from tests.api.conftest import Api, StartApi
from tests.wire import Crossing, Wire

pytestmark = pytest.mark.proof

STORED = "SELECT user_id, item_ids, total_amount, status, attempt, in_line FROM orders"
WHOLE = ("ada", ["tea", "cup"], Decimal("250.75"), "pending", 0, True)


class Doom:
    """Kills an API at one statement, counted from when it is armed, or at the answer to it."""

    def __init__(self, position: int, *, answered: bool) -> None:
        self.armed_for: Api | None = None
        self.met = False
        self.inserted = 0
        self.notified = 0
        self._at = (position, answered)
        self._statements: list[tuple[str, int]] = []

    def __call__(self, crossing: Crossing) -> bool:
        statement = (crossing.name, crossing.number)
        if self.armed_for and not crossing.answered:
            self._statements.append(statement)
        if self.armed_for and statement in self._statements:
            position = self._statements.index(statement) + 1
            if (position, crossing.answered) == self._at:
                self.met = True
                self.armed_for.process.kill()
                self.armed_for.process.wait()
                return False
        self.inserted += not crossing.answered and b"INSERT INTO orders" in crossing.content
        self.notified += crossing.answered and b"NOTIFY" in crossing.content
        return True


@pytest.mark.direct("it counts the sessions of the API")
def test_killed_at_any_boundary_of_a_post_the_api_leaves_a_whole_order_or_none(
    start_api: StartApi, database_url: str, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    inserted = 0

    def met(doom: Doom) -> bool:
        """Post twice, the second time with the doom armed; tell whether the API met it."""
        nonlocal inserted
        with Wire(database_url, doom) as wire:
            api = start_api(wire.url)
            assert api.post().status == 201
            wait_until(lambda: doom.notified == 1 and is_folded(connection) and is_quiet(connection))
            doom.armed_for = api
            with suppress(ConnectionError, http.client.HTTPException):
                assert api.post().status == 201
            # The wake-up is on its way while the client has its answer already.
            wait_until(lambda: doom.met or doom.notified == 2)
        inserted += doom.inserted
        assert connection.execute(STORED).fetchall() == [WHOLE] * inserted
        return doom.met

    def met_both_ways(position: int) -> bool:
        return all(met(Doom(position, answered=answered)) for answered in (False, True))

    # The order's statement and the wake-up's; and the tally's fold, if a second passed between the posts.
    assert list(takewhile(met_both_ways, count(1))) in ([1, 2], [1, 2, 3])


def is_folded(connection: Connection) -> bool:
    """Tell whether the statement that follows the wake-up is over as well: the tally's fold."""
    return connection.execute("SELECT count(*) FROM tally_changes").fetchone() == (0,)


def is_quiet(connection: Connection) -> bool:
    """Tell whether the API has all its connections, the wake-up's among them, and is busy on none."""
    rows = connection.execute("""
        SELECT application_name, state
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'orders-api%'
    """).fetchall()
    return len(rows) == 17 and {state for _, state in rows} == {"idle"}
