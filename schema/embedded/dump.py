"""Back a database up into one file, and check that such a file is whole."""

import os
import tempfile
from pathlib import Path

from schema.embedded import cluster
from schema.embedded.client import Client
from schema.errors import StartError


def take(client: Client, target: Path) -> None:
    """Dump the database, which stays in use, into the new file `target`.

    The dump holds every row whose commit was acknowledged before the call; owners, grants and settings of
    the database are not in it. The file is its owner's alone. It gets its name when it is verified and would
    survive a power failure; a crash leaves `.NAME.….partial`. Raises `StartError` when `target` exists.
    """
    if os.path.lexists(target):
        raise StartError(f"{target} exists: name a new file")
    client = client.suited()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        os.close(file)
        partial = Path(name)
        try:
            options = ["--no-password", "--format=custom", "--no-owner", "--no-privileges"]
            client.run("pg_dump", client.address, *options, f"--file={partial}")
            verify(client, partial)
            cluster.put(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"can't write {error.filename or target}: {error.strerror}") from error


def verify(client: Client, source: Path) -> None:
    """Read all of a dump; raise `StartError` if it is damaged or none. `client` is a suited one."""
    if (source / "PG_VERSION").exists():
        raise StartError(
            f"{source} is a folder as backups were before: the release before this one restores it"
        )
    # Not --list, which reads the table of contents alone.
    client.run("pg_restore", f"--file={os.devnull}", source)
