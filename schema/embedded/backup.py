"""Take a backup while the server works, and put one back."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from schema.embedded import account as accounts
from schema.embedded import binaries, cluster, manifest, processes
from schema.embedded.account import Account
from schema.embedded.config import SERVER_ENVIRONMENT
from schema.embedded.lock import locked
from schema.embedded.places import Place
from schema.embedded.server import Server
from schema.errors import StartError


def timestamp() -> str:
    """Return the time of day, UTC, as it stands in the names of folders."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def take(server: Server, target: Path | None = None) -> Path:
    """Copy the server's data folder, which stays in use, to `target`; return that once it is verified.

    By default `target` is a new folder in `backups` beside the server's home. It holds every row whose
    commit was acknowledged before the call. Raises `StartError` when it isn't empty.
    """
    target = (target or server.home.parent / "backups" / timestamp()).resolve()
    url = server.ensure_running()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StartError(f"{target} exists and isn't an empty folder: name another one")
    writer = _writer(target, server.place.account)
    writer.run(["mkdir", "-p", target.parent])
    programs = binaries.reachable(server.programs, writer, store=server.place.store)
    options = ["--wal-method=stream", "--checkpoint=fast", f"--manifest-checksums={manifest.CHECKSUMS}"]
    writer.run([programs / "pg_basebackup", f"--pgdata={target}", *options, f"--dbname={url}"])
    manifest.verify(target, server.programs)
    return target


def restore(server: Server, source: Path) -> Path | None:
    """Make a copy of the backup in `source` the server's data; return where the present data is now.

    Nothing is deleted. A crash leaves the old data in place or, from the last step on, the backup's.
    Raises `StartError` while the server runs, and when `source` is no intact backup of this version.
    """
    source = source.resolve()
    place = server.place
    place.make()
    with locked(place.lock, place.account):
        if processes.of(place.data):
            raise StartError("the server runs; stop it first: make stop-db")
        found = cluster.version(source)
        if found != str(binaries.MAJOR):
            raise StartError(f"{source} is a backup of PostgreSQL {found}, and this is {binaries.MAJOR}")
        manifest.verify(source, server.programs)
        _copy(source, place, programs=server.programs)
        return _swap(place)


def _writer(target: Path, account: Account) -> Account:
    """Return who makes the backup's files: the server's user in a folder of his, else ourselves."""
    folder = target
    while not folder.exists():
        folder = folder.parent
    return account if folder.stat().st_uid == account.uid else accounts.ourselves()


def _copy(source: Path, place: Place, *, programs: Path) -> None:
    """Fill `place.restored`: we read, because the server's user may not; he writes, so it is his."""
    cluster.clear(place)
    fresh = place.fresh()
    place.account.run(["mkdir", "-m", "0700", fresh])
    reading = ["tar", "-C", str(source), "-cf", "-", "."]
    with subprocess.Popen(reading, stdout=subprocess.PIPE, env=SERVER_ENVIRONMENT) as reader:
        place.account.run(["tar", "-C", fresh, "-xf", "-"], stdin=reader.stdout, what=f"copying {source}")
    if reader.returncode != 0:
        raise StartError(f"copying {source} failed: tar ended with status {reader.returncode}")
    # The backup may have been carried about; PostgreSQL takes a folder of this mode only.
    place.account.run(["chmod", "0700", fresh])
    programs = binaries.reachable(programs, place.account, store=place.store)
    place.account.run([programs / "initdb", "--sync-only", f"--pgdata={fresh}"])
    cluster.put(fresh, place.restored)


def _swap(place: Place) -> Path | None:
    aside = None
    if place.data.exists():
        aside = place.folder / f"data-before-restore-{timestamp()}"
        cluster.put(place.data, aside)
    cluster.put(place.restored, place.data)
    return aside
