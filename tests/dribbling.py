"""Clients whose requests never arrive."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def dribbling(port: int, count: int, start: bytes = b"") -> Iterator[list[socket.socket]]:
    """Keep so many connections open, on each of which a request arrives byte by byte and never ends."""
    over = threading.Event()
    with ExitStack() as stack:
        clients: list[socket.socket] = []
        for _ in range(count):
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)))
            clients[-1].sendall(start)

        def dribble() -> None:
            while not over.wait(0.5):
                for client in clients:
                    with suppress(OSError):
                        client.send(b"a")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            yield clients
        finally:
            over.set()
            thread.join()
