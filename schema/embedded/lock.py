"""The lock that a process holds while it starts or stops the server."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from schema.embedded.patience import Patience
from schema.embedded.places import Place
from schema.errors import StartError


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Hold the lock of the place's lock file. The kernel drops it with the process that holds it.

    Raises `StartError` when the file can't be opened, or another process holds it for a quarter of an hour.
    """
    path = place.folder / "lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"can't lock {path}: {error.strerror}") from error
    try:
        if place.account.switch and os.fstat(file).st_uid == 0:
            os.fchown(file, place.account.uid, place.account.gid)
        patience = Patience(900, f"another process that holds {path}")
        while not _acquired(file):
            patience.wait()
        yield
    finally:
        # Unlocked explicitly: a process that was forked meanwhile has a copy of the descriptor.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _acquired(file: int) -> bool:
    try:
        # flock, not lockf, which two threads of one process would both get.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
