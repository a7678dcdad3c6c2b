"""Start a server process, detached, on a data folder that is made and cleared first."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from schema.embedded import address, binaries, cluster, processes
from schema.embedded.patience import Patience
from schema.embedded.places import Place

SHUTDOWN_SECONDS = 300


def launch(place: Place, programs: Path, *, settings: Mapping[str, str]) -> None:
    """Start the server in a session of its own, with nothing of ours open, and don't wait for it.

    To be called under the lock, when no server lives. Raises `StartError` when there is nothing to start.
    """
    programs = binaries.reachable(programs, place.account, store=place.store)
    place.account.run(["mkdir", "-p", "-m", "0700", place.log])
    cluster.make(place, programs)
    address.make(place)
    address.allow(place)
    cluster.check(place)
    _clear_away(place)
    # A shell in between, so that the server is nobody's child: init takes it over and reaps it.
    script = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 &'
    shell: list[str | Path] = ["/bin/sh", "-c", script, "sh", place.start_log]
    server: list[str | Path] = [programs / "postgres", "-D", place.data, *_options(place, settings)]
    place.account.run([*shell, *server], what="PostgreSQL", new_session=True)


def _clear_away(place: Place) -> None:
    """End the children of a server that was killed, and forget its pid, which may be anybody's by now.

    PostgreSQL would believe its lock files if any process had that pid, were it a zombie. Its own
    guard against two servers on one folder, the shared memory segment, stays.
    """
    patience = Patience(SHUTDOWN_SECONDS, f"what was left of PostgreSQL in {place.folder} to end")
    processes.end(place.data, signal.SIGKILL, patience=patience)
    socket = address.folder(place) / address.SOCKET
    for stale in (place.data / "postmaster.pid", socket, socket.with_name(f"{socket.name}.lock")):
        place.account.run(["rm", "-f", stale])


def _options(place: Place, given: Mapping[str, str]) -> list[str]:
    settings = {
        "cluster_name": processes.cluster_name(place.data),
        "logging_collector": "on",
        "log_directory": os.fspath(place.log),
        # One file for each day of the week, begun anew a week later: the logs stay small.
        "log_filename": "%a.log",
        "log_truncate_on_rotation": "on",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        **given,
    }
    return [*address.options(place), *address.switches(settings)]
