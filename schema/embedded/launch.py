"""Start a server process, detached, on a data folder that is made and cleared first."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from schema.embedded import address, binaries, cluster, processes
from schema.embedded.patience import Patience
from schema.embedded.places import Place

SHUTDOWN_SECONDS = 300

MAX_CONNECTIONS = 1500
"""Room for the most API processes that a setting allows (64, of 17 connections each), for some thirty workers
(13 each), and for people. Unused, they cost 50 MB. Whoever starts the server does not know who comes next."""


def launch(place: Place, programs: Path | None, *, settings: Mapping[str, str]) -> None:
    """Start the server in a session of its own, with no open file of this process, and don't wait for it.

    `programs` is the folder with PostgreSQL's programs, by default of those that suit the data folder. Call
    it under the lock, when no server lives. Raises `StartError` when there is nothing to start.
    """
    programs = binaries.reachable(programs or cluster.programs(place), place.account, store=place.store)
    place.account.run(["mkdir", "-p", "-m", "0700", place.log])
    cluster.make(place, programs)
    address.make(place)
    address.allow(place)
    _clear_away(place)
    options = address.switches({**address.settings(place), **_settings(place), **settings})
    # A shell in between, so that the server is not our child: init adopts it and reaps it.
    script = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 &'
    shell: list[str | Path] = ["/bin/sh", "-c", script, "sh", place.start_log]
    # In a new session neither Ctrl-C nor the terminal's end reaches it.
    place.account.run([*shell, programs / "postgres", "-D", place.data, *options], start_new_session=True)


def _clear_away(place: Place) -> None:
    """End the children of a server that was killed, and forget its pid, which may be another process's now.

    PostgreSQL would believe its lock files if any process had that pid, were it a zombie. Its own
    guard against two servers on one folder, the shared memory segment, stays.
    """
    patience = Patience(SHUTDOWN_SECONDS, f"what was left of PostgreSQL in {place.folder} to end")
    processes.end(place.data, signal.SIGKILL, patience=patience)
    socket = address.folder(place) / address.SOCKET
    lock_file = socket.with_name(f"{socket.name}.lock")
    place.account.run(["rm", "-f", place.data / "postmaster.pid", socket, lock_file])


def _settings(place: Place) -> dict[str, str]:
    return {
        "max_connections": str(MAX_CONNECTIONS),
        "cluster_name": processes.cluster_name(place.data),
        "logging_collector": "on",
        "log_directory": os.fspath(place.log),
        # One file for each day of the week, begun anew a week later: the logs stay small.
        "log_filename": "%a.log",
        "log_truncate_on_rotation": "on",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        # An error's first line alone: rows are in its detail, its context and its statement.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
    }
