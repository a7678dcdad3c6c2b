"""The folder below /var/lib for what the server's user can't reach where it is; root's, and open to all."""

import tempfile
from pathlib import Path

STORE = Path("/var/lib/orders-queue")


def make(store: Path) -> None:
    """Make the folder if it isn't there: never half-made, whatever the umask."""
    if not store.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f"{store.name}.", dir=store.parent))
        fresh.chmod(0o755)
        try:
            fresh.rename(store)
        except OSError:
            fresh.rmdir()
            # Another process may have made it first, and have put something there.
            if not store.is_dir():
                raise
