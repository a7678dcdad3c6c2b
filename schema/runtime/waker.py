"""Wake a thread that waits, also for its connection, from another thread."""

import contextlib
import select
import socket
from collections.abc import Callable

from schema.runtime.connection import Connection


class Waker:
    """A self-pipe: a thread waits for it and for data on its connection at the same time.

    `connection` returns the present connection, None while there is none. Any number of calls of `wake`
    before the wait ends count as one.
    """

    def __init__(self, connection: Callable[[], Connection | None] = lambda: None) -> None:
        self._connection = connection
        self._inside, self._outside = socket.socketpair()
        self._inside.settimeout(0)
        self._outside.settimeout(0)

    def wake(self) -> None:
        """End the wait, the present one or else the next one."""
        with contextlib.suppress(OSError):  # the pipe is full, so the wait ends anyway; or it is closed
            self._outside.send(b"!")

    def wait(self, seconds: float) -> None:
        """Wait for a call of `wake`, for data or a hang-up on the connection, or until the time is over."""
        poll = select.poll()
        poll.register(self._inside, select.POLLIN)
        connection = self._connection()
        if connection is not None and not connection.closed:
            poll.register(connection.fileno(), select.POLLIN)
        ready = poll.poll(max(seconds, 0.0) * 1000)
        if any(source == self._inside.fileno() for source, _ in ready):
            self._inside.recv(4096)

    def close(self) -> None:
        """Close the sockets. No thread may wait any more."""
        self._inside.close()
        self._outside.close()
