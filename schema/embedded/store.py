"""The folder below /var/lib for what the server's user can't reach where it is; root's, and open to all."""

import tempfile
from pathlib import Path

STORE = Path("/var/lib/orders-queue")


def make() -> Path:
    """Return the folder, made if it isn't there: never half-made, whatever the umask."""
    if not STORE.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f"{STORE.name}.", dir=STORE.parent))
        fresh.chmod(0o755)
        try:
            fresh.rename(STORE)
        except OSError:
            fresh.rmdir()
            # Another process may have made it first, and have put something there.
            if not STORE.is_dir():
                raise
    return STORE
