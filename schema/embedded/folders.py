"""Folders that are there whole or not at all, though many processes make them at once."""

import os
import tempfile
from pathlib import Path

from schema.embedded.account import Account

STORE = Path("/var/lib/orders-queue")
"""The folder for files that the server's user can't reach in their own place: root's, and open to all."""


def make(folder: Path, *, owner: Account | None = None) -> None:
    """Make the folder unless it is there: for `owner` alone, or without one ours and open to all.

    It has its mode and owner from its first moment, whatever the umask. Raises `OSError`.
    """
    if folder.exists():
        return
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        if owner is None:
            fresh.chmod(0o755)
        elif owner.switch:
            os.chown(fresh, owner.uid, owner.gid, follow_symlinks=False)
        fresh.rename(folder)
    except OSError:
        fresh.rmdir()
        # Another process may have made it first, and have put something there.
        if not folder.is_dir():
            raise
