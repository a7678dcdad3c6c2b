"""What happens to the server and inside it. Each fault first yields what it is about to do."""

import contextlib
import time
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.scene import SERVER, Scene, Told


def kill_session(scene: Scene, dice: Random) -> Iterator[Told]:
    """Kill the process of one session with SIGKILL: the server ends all of them and recovers."""
    yield Told(SERVER, "SIGKILL to one backend, all are reset")
    scene.database.kill_session(dice)
    scene.pause(0.2)
    scene.database.ensure_running()


def terminate_session(scene: Scene, dice: Random) -> Iterator[Told]:
    """End some sessions with pg_terminate_backend."""
    count = dice.choice((1, 1, 3, 10))
    yield Told(SERVER, f"{count} sessions")
    scene.database.terminate_sessions(count, dice)


def kill_server(scene: Scene, dice: Random) -> Iterator[Told]:
    """Kill the postmaster with SIGKILL; start it again."""
    seconds = dice.uniform(0.2, 2)
    yield Told(SERVER, f"SIGKILL, away for {seconds:.1f} s")
    scene.database.kill()
    scene.pause(seconds)
    scene.database.ensure_running()


def stop_server(scene: Scene, dice: Random) -> Iterator[Told]:
    """Stop the server and start it again."""
    mode, seconds = dice.choice(("immediate", "immediate", "fast")), dice.uniform(0.2, 3)
    yield Told(SERVER, f"{mode}, away for {seconds:.1f} s")
    scene.database.stop(mode)
    scene.pause(seconds)
    scene.database.ensure_running()


def full_pool(scene: Scene, dice: Random) -> Iterator[Told]:
    """Take every connection that the server has left, and some that it had given."""
    seconds = dice.uniform(2, 5)
    yield Told(SERVER, f"every free connection taken for {seconds:.1f} s")
    taken: list[psycopg.Connection[Any]] = []
    try:
        _take_all(scene, taken)
        if taken:
            _end_some(taken[0], dice)
        _take_all(scene, taken)
        scene.pause(seconds)
    finally:
        for connection in taken:
            connection.close()


def _end_some(connection: psycopg.Connection[Any], dice: Random) -> None:
    with contextlib.suppress(psycopg.Error):
        pids = [pid for (pid,) in connection.execute(_SESSIONS)]
        for pid in dice.sample(pids, min(8, len(pids))):
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])


_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'orders-%' ORDER BY pid"


def _take_all(scene: Scene, taken: list[psycopg.Connection[Any]]) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        while not scene.over.is_set():
            taken.append(scene.database.connect())


def long_snapshot(scene: Scene, dice: Random) -> Iterator[Told]:
    """Hold a snapshot, as a forgotten transaction does."""
    seconds = dice.uniform(10, 60)
    yield Told(SERVER, f"held for {seconds:.0f} s")
    with contextlib.suppress(psycopg.OperationalError), scene.database.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM orders")
        scene.pause(seconds)


def lock_rows(scene: Scene, dice: Random) -> Iterator[Told]:
    """Lock the first orders in line and in hand, as a person with psql may."""
    seconds = dice.uniform(1, 5)
    yield Told(SERVER, f"the first orders, for {seconds:.1f} s")
    with contextlib.suppress(psycopg.OperationalError), scene.database.connect() as connection:
        connection.execute("BEGIN")
        with _noted(scene) as locked:
            locked += [order_id for (order_id,) in connection.execute(_LOCK_FIRST)]
            scene.pause(seconds)
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def _noted(scene: Scene) -> Iterator[list[UUID]]:
    """Note from when to when the orders were locked that are put into the list."""
    locked: list[UUID] = []
    began_at = time.time()
    try:
        yield locked
    finally:
        for order_id in locked:
            scene.locked.setdefault(order_id, []).append((began_at, time.time()))


_LOCK_FIRST = """
SELECT order_id
FROM orders
WHERE status IN ('pending', 'processing', 'retrying')
ORDER BY seq
LIMIT 5
FOR UPDATE SKIP LOCKED
"""
