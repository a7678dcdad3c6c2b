"""The programs beside PostgreSQL's that some tests need, and which Debian package has each."""

import os
import shutil
from pathlib import Path

PACKAGES = {"pgbouncer": "pgbouncer", "spin": "spin", "gcc": "gcc libc6-dev", "postgres": "postgresql"}


def find(program: str) -> str | None:
    """Return the program's path, also from where Debian has PgBouncer or a PostgreSQL of any version.

    The first is the `sbin` beside a `bin`.
    """
    folders = [Path(folder) for folder in os.get_exec_path()]
    beside = [folder.with_name("sbin") for folder in folders if folder.name == "bin"]
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    return shutil.which(program, path=os.pathsep.join(map(str, [*folders, *beside, *versions])))


def missing(*programs: str) -> str | None:
    """Name the packages of those programs that are not here, None if all are."""
    return " ".join(PACKAGES[program] for program in programs if find(program) is None) or None
