"""Wake a thread that waits for its connection, from another thread."""

import contextlib
import select
import socket
from typing import Any

import psycopg


class Bell:
    """Rings once for any number of calls; a thread waits for it and for a connection at the same time."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.settimeout(0)
        self._outside.settimeout(0)

    def ring(self) -> None:
        """Wake the waiting thread, now or when it next waits."""
        with contextlib.suppress(OSError):  # it has rung often enough to be heard, or nobody waits any more
            self._outside.send(b"!")

    def wait(self, seconds: float, *, connection: psycopg.Connection[Any] | None) -> None:
        """Wait until it rings, the server says something on `connection` or hangs up, or time is over."""
        poll = select.poll()
        poll.register(self._inside, select.POLLIN)
        if connection is not None and not connection.closed:
            poll.register(connection.fileno(), select.POLLIN)
        ready = poll.poll(max(seconds, 0.0) * 1000)
        if any(source == self._inside.fileno() for source, _ in ready):
            self._inside.recv(4096)

    def close(self) -> None:
        """Let go of the sockets; nobody may wait any more."""
        self._inside.close()
        self._outside.close()
