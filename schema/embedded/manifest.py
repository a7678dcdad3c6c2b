"""Verify a base backup against the manifest that the server wrote with it.

The job of pg_verifybackup, whose binary in the wheel for PostgreSQL 18 crashes at once.
https://www.postgresql.org/docs/18/backup-manifest-format.html
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schema.embedded import account
from schema.errors import StartError

NAME = "backup_manifest"
CHECKSUMS = "SHA256"

# What pg_verifybackup doesn't expect in a manifest either; the write-ahead log is checked by reading it.
_UNLISTED = {NAME, "postgresql.auto.conf", "recovery.signal", "standby.signal"}


def verify(folder: Path, programs: Path) -> None:
    """Raise `StartError` with the first fault of the backup in `folder`, which is only read."""
    try:
        content = (folder / NAME).read_bytes()
        manifest = json.loads(content)
        listed = {_name(entry): entry for entry in manifest["Files"]}
        fault = next(_faults(folder, content, manifest=manifest, listed=listed), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"{folder} is no complete backup: {error}") from error
    if fault:
        raise StartError(f"{folder} is no intact backup: {fault}")
    for span in manifest["WAL-Ranges"]:
        _read_log(folder, programs, span=span)


def _faults(
    folder: Path, content: bytes, *, manifest: dict[str, Any], listed: dict[str, dict[str, Any]]
) -> Iterator[str]:
    last_line = content.rindex(b"\n", 0, -1) + 1
    if hashlib.sha256(content[:last_line]).hexdigest() != manifest["Manifest-Checksum"]:
        yield f"{NAME} has been changed"
    for name, entry in listed.items():
        if entry["Checksum-Algorithm"] != CHECKSUMS:
            yield f"its checksums are {entry['Checksum-Algorithm']}, not {CHECKSUMS}"
        if _checksum(folder / name) != entry["Checksum"]:
            yield f"{name} has been changed"
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in listed.keys() | _UNLISTED and not name.startswith("pg_wal/"):
            yield f"{name} doesn't belong to it"


def _name(entry: dict[str, Any]) -> str:
    if "Path" in entry:
        return str(entry["Path"])
    return bytes.fromhex(entry["Encoded-Path"]).decode(errors="surrogateescape")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_log(folder: Path, programs: Path, *, span: dict[str, Any]) -> None:
    """Have every record that the restored server needs read by pg_waldump."""
    command: list[str | Path] = [programs / "pg_waldump", "--quiet", f"--path={folder / 'pg_wal'}"]
    command += [f"--timeline={span['Timeline']}", f"--start={span['Start-LSN']}", f"--end={span['End-LSN']}"]
    account.ourselves().run(command, what=f"reading the write-ahead log of {folder}")
