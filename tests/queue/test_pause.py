from collections.abc import Callable
from typing import Any

import pytest

from schema.errors import SwitchLockedError
from schema.queue import pause
from schema.runtime.connection import Connection
from tests.rows import Queue


def test_pausing_twice_keeps_the_first_time_and_resuming_twice_is_fine(queue: Queue) -> None:
    pause.pause(queue.connection)
    first = queue.value("SELECT paused_at FROM queue")
    pause.pause(queue.connection)
    assert queue.value("SELECT paused_at FROM queue") == first

    pause.resume(queue.connection)
    pause.resume(queue.connection)
    assert queue.value("SELECT paused_at FROM queue") is None


@pytest.mark.parametrize("first", [pause.pause, pause.resume])
def test_pause_and_resume_work_without_the_switch_s_row(queue: Queue, first: Any) -> None:
    queue.connection.execute("DELETE FROM queue")
    queue.worker()
    queue.insert()

    first(queue.connection)
    pause.pause(queue.connection)
    assert queue.exchange(free=1).paused

    pause.resume(queue.connection)
    assert len(queue.claim()) == 1


@pytest.mark.parametrize("switch", [pause.pause, pause.resume])
def test_switch_that_somebody_has_locked_is_an_error_and_no_wait(
    queue: Queue, connect: Callable[[], Connection], switch: Any
) -> None:
    with connect() as other, other.transaction():
        other.execute("SELECT FROM queue FOR UPDATE")

        with pytest.raises(SwitchLockedError):
            switch(queue.connection)
