"""What a child that a handler forks must not keep of this process: open sockets.

The server takes a worker for alive while any process has its heartbeat's socket open.
"""

import contextlib
import os
from typing import Protocol
from weakref import WeakSet


class Socket(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int:
        """Return the file descriptor; raise when it is closed."""


_sockets: WeakSet[Socket] = WeakSet()


def withhold(socket: Socket) -> None:
    """Close the socket in each child forked from now on."""
    _sockets.add(socket)


def _close_all() -> None:
    # Not close(): the number would be the next file's, while the object goes on to use it.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for socket in _sockets:
        with contextlib.suppress(Exception):  # closed already: OSError, or the driver's own
            os.dup2(nowhere, socket.fileno(), inheritable=False)
    os.close(nowhere)


os.register_at_fork(after_in_child=_close_all)
