"""The operating system's user that the server runs as, and programs that run as that user.

PostgreSQL refuses to run as root. As root, the server runs as the owner of the checkout. If that is root too,
it runs as the system user `orders-postgres`, which is made with useradd when it is missing. Programs that run
as the server's user make everything below the server's folder: root itself never writes where an unprivileged
user could have put a symbolic link.
"""

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema.embedded.environments import SERVER_ENVIRONMENT
from schema.errors import StartError

SYSTEM_USER = "orders-postgres"

_USERADD_SECONDS = 10
_USERADD_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """A user with a name, which peer authentication needs. `switch`: programs run by root change to it."""

    name: str
    uid: int
    gid: int
    switch: bool = False

    def run(self, command: Sequence[str | Path], **options: Any) -> str:
        """Run a program as this user, outside the caller's environment, as `run` does."""
        return run(command, **self.options(), **options)

    def succeeds(self, *command: str | Path) -> bool:
        """Tell whether a program can be run as this user and succeeds."""
        try:
            self.run(command)
        except StartError:
            return False
        return True

    def can_use(self, folder: Path, *, access: str) -> bool:
        """Tell whether this user has all of `access` (letters of r, w, x) to the folder."""
        return all(self.succeeds("test", f"-{letter}", folder) for letter in access)

    def options(self) -> dict[str, Any]:
        """Return the options of `subprocess` that run a program as this user."""
        options: dict[str, Any] = {"env": SERVER_ENVIRONMENT, "cwd": "/", "umask": 0o077}
        if self.switch:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Run a program without input, with the `options` of `subprocess`; return what it printed.

    Raises `StartError` when it can't be run, and with the last lines of its standard error when it fails.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **options)
    except OSError as error:
        raise StartError(f"{name} can't be run: {error}") from error
    if done.returncode != 0:
        raise StartError(f"{name} failed: {last_lines(done.stderr) or f'status {done.returncode}'}")
    printed: bytes = done.stdout
    return printed.decode(errors="replace")


def last_lines(text: bytes, count: int = 3) -> str:
    """Return the last lines that are not blank, after the first line that reports an error, as one line."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines[:-count] if re.search("PANIC|FATAL|ERROR|error:", line)]
    return " | ".join(causes[:1] + lines[-count:])


def for_folder(folder: Path) -> Account:
    """Return the user to run a server in `folder` as. The folder need not exist yet."""
    uid = os.geteuid()
    if uid != 0:
        try:
            return _account(pwd.getpwuid(uid), switch=False)
        except KeyError:
            raise StartError(
                f"user {uid} has no name on this machine, and PostgreSQL needs one:"
                " add it to /etc/passwd, or set DATABASE_URL"
            ) from None
    while not folder.exists():
        folder = folder.parent
    owner = folder.stat().st_uid
    with suppress(KeyError):
        if owner != 0:
            return _account(pwd.getpwuid(owner), switch=True)
    return _system_user()


def _account(entry: pwd.struct_passwd, *, switch: bool) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch)


def _system_user() -> Account:
    """Return `orders-postgres`, made if missing. useradd fails while another process edits /etc/passwd."""
    deadline = time.monotonic() + _USERADD_SECONDS
    while True:
        with suppress(KeyError):
            return _account(pwd.getpwnam(SYSTEM_USER), switch=True)
        try:
            _add_system_user()
        except StartError as error:
            if time.monotonic() > deadline or shutil.which("useradd", path=_USERADD_FOLDERS) is None:
                raise StartError(
                    f"PostgreSQL can't run as root, and a system user for it can't be made ({error}):"
                    f" create the user {SYSTEM_USER}, or set DATABASE_URL"
                ) from error
            time.sleep(0.1)


def _add_system_user() -> None:
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command = ["useradd", *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    run(command, env={**SERVER_ENVIRONMENT, "PATH": _USERADD_FOLDERS})
