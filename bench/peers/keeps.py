"""What each peer keeps of a job: a rate says little without it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """A queue measured beside ours: how it is set up, and what its tables show of a job, during and after."""

    name: str
    setting: str
    working: str
    done: str


GRAPHILE = Peer(
    "Graphile Worker",
    "24 jobs at once, 500 locked ahead, completions in batches",
    "each job locked, up to 500 before their turn",
    "deletes it",
)
PGQUEUER = Peer(
    "PgQueuer",
    "asyncpg and uvloop, batches as named in the row",
    "each batch picked",
    "deletes it; its log keeps a line without the payload",
)
PG_BOSS = Peer(
    "pg-boss",
    "2 workers of 5,000 jobs a call, each fetching again at once",
    "each batch of 5,000 active",
    "keeps it for 12 hours, then 7 days in an archive",
)
AWA = Peer(
    "awa-pg",
    "uvloop, 4 partitions of 1,024 at once, claimed by 1,024",
    "each batch of up to 1,024 running",
    "shows it for seconds, until its partition is truncated",
)
PROCRASTINATE = Peer(
    "Procrastinate",
    "uvloop, 10 jobs at once, a pool given to it of 11 connections",
    "each job doing, with its worker",
    "keeps it with its events until somebody deletes it",
)
PEERS = (GRAPHILE, PG_BOSS, PGQUEUER, AWA, PROCRASTINATE)
