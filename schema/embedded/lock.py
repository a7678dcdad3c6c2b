"""One process at a time: the lock around everything that starts or stops the server."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schema.embedded.account import Account
from schema.embedded.patience import Patience
from schema.errors import StartError


@contextmanager
def locked(path: Path, account: Account) -> Iterator[None]:
    """Hold the lock file at `path`, made for `account`. The kernel drops it with the process that holds it.

    Raises `StartError` when the file can't be opened, or somebody holds it for a quarter of an hour.
    """
    file = _open(path, account)
    try:
        _acquire(file, path)
        yield
    finally:
        # Unlocked explicitly: a process that was forked meanwhile has a copy of the descriptor.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _open(path: Path, account: Account) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"can't lock {path}: {error.strerror}") from error
    if account.switch and os.fstat(file).st_uid == 0:
        os.fchown(file, account.uid, account.gid)
    return file


def _acquire(file: int, path: Path) -> None:
    # flock, not lockf, which two threads of one process would both get.
    patience = Patience(900, f"another process that holds {path}")
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            patience.wait()
        else:
            return
