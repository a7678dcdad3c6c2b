"""Wake a thread that waits for its connection, from another thread."""

import contextlib
import select
import socket
from typing import Any

import psycopg


class Waker:
    """A self-pipe: a thread waits for it and for its connection at the same time.

    Any number of calls before the wait ends count as one.
    """

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.settimeout(0)
        self._outside.settimeout(0)

    def wake(self) -> None:
        """Wake the waiting thread, now or when it next waits."""
        with contextlib.suppress(OSError):  # the pipe is full, so the wait ends anyway; or it is closed
            self._outside.send(b"!")

    def wait(self, seconds: float, *, connection: psycopg.Connection[Any] | None) -> None:
        """Wait for a call of `wake`, for data or a hang-up on `connection`, or until the time is over."""
        poll = select.poll()
        poll.register(self._inside, select.POLLIN)
        if connection is not None and not connection.closed:
            poll.register(connection.fileno(), select.POLLIN)
        ready = poll.poll(max(seconds, 0.0) * 1000)
        if any(source == self._inside.fileno() for source, _ in ready):
            self._inside.recv(4096)

    def close(self) -> None:
        """Close the sockets. No thread may wait any more."""
        self._inside.close()
        self._outside.close()
