"""A PostgreSQL of the tests' own, which leaves nothing behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schema.embedded.server import Server

MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 << 30


@contextmanager
def temporary_server(*, store: Path | None = None, **settings: str) -> Iterator[Server]:
    """Yield a server that has yet to be started; its files are gone afterwards.

    What its user can't reach where it is goes into `store`, or else into a folder that is gone with it.
    """
    with reachable_folder() as home:
        server = Server(home / "server", settings=settings, store=store or home / "store")
        try:
            yield server
        finally:
            server.stop(mode="immediate")


@contextmanager
def reachable_folder(prefix: str = "orders-test-") -> Iterator[Path]:
    """Yield a temporary folder that every user reaches; as root the server runs as another one."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_parent()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    """Return where servers lie: in memory if there is plenty, for each of their databases is 300 files.

    Never below $TMPDIR, which may be ours alone.
    """
    if MEMORY.is_dir():
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize > ROOM_BYTES and not found.f_flag & os.ST_NOEXEC:
            return MEMORY
    return Path("/tmp")
