from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orders_api.database.notifier import Notifier
from schema.queue import wake
from schema.runtime.connection import Connection
from tests.api.conftest import Relay

pytestmark = pytest.mark.direct("LISTEN")


@pytest.fixture
def listener(connect: Callable[[], Connection]) -> Connection:
    listener = connect()
    wake.listen(listener)
    return listener


@pytest.fixture
def notifier(relay: Relay) -> Iterator[Notifier]:
    with Notifier(relay.url) as notifier:
        yield notifier


def heard(listener: Connection, *, seconds: float = 30) -> bool:
    """Wait for one wake-up."""
    return any(True for _ in listener.notifies(timeout=seconds, stop_after=1))


def test_wake_up_reaches_a_listening_worker(notifier: Notifier, listener: Connection) -> None:
    notifier.notify()

    assert heard(listener)


def test_nothing_is_sent_unasked(notifier: Notifier, listener: Connection) -> None:
    notifier.notify()
    assert heard(listener)

    assert not heard(listener, seconds=0.1)


def test_wake_ups_asked_for_at_once_become_few(notifier: Notifier, listener: Connection) -> None:
    for _ in range(1000):
        notifier.notify()
    assert heard(listener)

    rest = sum(1 for _ in listener.notifies(timeout=0.2))
    assert rest < 100


def test_wake_up_asked_for_while_the_database_is_away_is_sent_when_it_is_back(
    notifier: Notifier, relay: Relay, listener: Connection
) -> None:
    notifier.notify()
    assert heard(listener)
    relay.away()
    notifier.notify()
    assert not heard(listener, seconds=0.2)

    relay.back()

    assert heard(listener)


def test_stop_does_not_wait_for_a_database_that_is_away(relay: Relay) -> None:
    relay.away()
    with Notifier(relay.url) as notifier:
        notifier.notify()

    notifier._loop._thread.join(10)
    assert not notifier._loop._thread.is_alive()


def test_connection_is_opened_by_the_first_order_and_needs_no_flush(
    notifier: Notifier, listener: Connection, connection: Connection
) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-api wake-up'"
    assert connection.execute(statement).fetchone() == (0,)

    notifier.notify()

    assert heard(listener)
    assert connection.execute(statement).fetchone() == (1,)


def test_tally_is_folded_on_the_way(notifier: Notifier, listener: Connection, wait_until: Any) -> None:
    listener.execute("INSERT INTO tally_changes (pending) VALUES (5), (-5)")

    notifier.notify()

    wait_until(lambda: listener.execute("SELECT count(*) FROM tally_changes").fetchone() == (0,))
