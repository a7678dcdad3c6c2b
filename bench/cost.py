"""What does an order cost the server, from its claim to its completion?

Load: one connection that exchanges so many orders for the next ones again and again; the processor time of
its backend, the bytes that it writes to the log (whole pages after a checkpoint among them) and the buffers
that it looks at, for each order. Bound: the same of the floor's statement (`floors/exchange.sql`), in turns,
by as much as a drain may be slower. Log and buffers hardly change with what else the machine does, unlike
rates.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from bench.measurement import Measurement, in_turns
from bench.stage import FLOORS, Stage
from bench.statements import exchange_times
from schema.runtime.connection import Connection

BOUND = 1 / 0.8

ORDERS = {100: 20_000, 10: 6_000, 1: 1_500}
"""How many are exchanged, by how many at a time."""

WARMING = 12
"""Exchanges of a new session that do not count: in them statements are planned and the catalogue is read."""


class Cost(NamedTuple):
    """What one order took of the server, or all of them."""

    processor_us: float
    log_bytes: float
    buffers_pages: float


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield each of the costs at each size."""
    for size, count in ORDERS.items():
        orders = count * (5 if full else 1)
        ours, floor = in_turns(
            lambda size=size, orders=orders: _ours(stage, orders, size=size),
            lambda size=size, orders=orders: _floor(stage, orders, size=size),
        )
        for name in Cost._fields:
            what, _, unit = name.partition("_")
            yield Measurement(
                "cost",
                f"{what}, {size} at a time",
                unit,
                [getattr(each, name) for each in ours],
                "the floor's statement",
                [getattr(each, name) for each in floor],
                BOUND,
                less_is_better=True,
            )


def _ours(stage: Stage, orders: int, *, size: int) -> Cost:
    stage.fill(orders + WARMING * size)
    return _of_each(stage, orders, size=size, exchange=exchange_times)


def _floor(stage: Stage, orders: int, *, size: int) -> Cost:
    stage.fill_floor(orders + WARMING * size)
    return _of_each(stage, orders, size=size, exchange=_floor_exchanges)


def _floor_exchanges(connection: Connection, *, count: int, size: int) -> None:
    statement = (FLOORS / "exchange.sql").read_text().partition(r"\gset")[0]
    statement = statement.replace(":ids", "%(ids)s").replace(":batch", "%(batch)s")
    ids: list[UUID] = []
    for free in (size,) * count + (0,):
        row = connection.execute(statement, {"ids": ids, "batch": free}).fetchone()
        assert row is not None
        ids = row[0]


def _of_each(stage: Stage, orders: int, *, size: int, exchange: Callable[..., object]) -> Cost:
    """Return what each order costs when a new session lets `exchange` have so many, `size` at a time."""
    with Connection.open(stage.url, name="bench") as connection:
        exchange(connection, count=WARMING, size=size)
        earlier = _spent(connection)
        exchange(connection, count=orders // size, size=size)
        later = _spent(connection)
    return Cost(*((after - before) / orders for after, before in zip(later, earlier, strict=True)))


_SPENT = """
SELECT (SELECT wal_bytes FROM pg_stat_get_backend_wal(pg_backend_pid())),
       (SELECT sum(hits + reads) FROM pg_stat_get_backend_io(pg_backend_pid()))
"""


def _spent(connection: Connection) -> Cost:
    """Return what this session has cost so far."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(_SPENT).fetchone()
    assert row is not None
    nanoseconds = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]
    return Cost(int(nanoseconds) / 1000, float(row[0]), float(row[1]))
