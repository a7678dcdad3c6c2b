"""The environments that PostgreSQL's programs get. Nothing else in this package reads the caller's."""

import os
from collections.abc import Mapping

# Nothing of the caller's: PGDATA, PGOPTIONS, LC_ALL, TZ or LD_PRELOAD would change what these programs do.
# A new data folder gets the time zone.
SERVER_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# The same for libpq inside this process, where the environment can't be replaced.
NEUTRAL_PARAMETERS: Mapping[str, str] = {
    "channel_binding": "disable",
    "client_encoding": "UTF8",
    "connect_timeout": "3",
    "gssencmode": "disable",
    "hostaddr": "",
    "options": "",
    "require_auth": "",
    "requirepeer": "",
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "target_session_attrs": "any",
}


def terminal_environment() -> dict[str, str]:
    """Return the caller's environment without libpq's variables (PGHOST, PGOPTIONS, …)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def given_environment(**changes: str) -> dict[str, str]:
    """Return the caller's environment with `changes`."""
    return {**os.environ, **changes}
