"""`make mutations`: break one condition of the queue's statements at a time, and see what notices.

Prints a page in Markdown, each row as it is found. Exits 1 on any surprise.
"""

import sys

import psycopg
from psycopg import conninfo

from schema import migrate
from tests.model.examination import Verdict, examine
from tests.model.mutations import MUTATIONS
from tests.servers import temporary_server

TEMPLATE = "orders_model"

HEAD = f"""# What notices a broken statement

{len(MUTATIONS)} mutations: each breaks one condition of one statement in `schema/`, as listed in
`tests/model/mutations.py`. Random lives of the queue run in the broken database and in the model
(`tests/model/queue.py`) until the two differ. The last column names the call after which they did, and what
differed. Where nothing can notice, the reason stands there.

Made by `make mutations > docs/mutations.md`.

| statement | broken so that it | noticed by |
| --- | --- | --- |"""


def main() -> int:
    """Examine every mutation on a temporary server; return the exit status."""
    with temporary_server(fsync="off") as server:
        return _examine(server.ensure_running())


def _examine(server_url: str) -> int:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate.upgrade(conninfo.make_conninfo(server_url, dbname=TEMPLATE))
    print(HEAD, flush=True)
    surprises = 0
    for verdict in examine(server_url, TEMPLATE):
        surprises += not verdict.expected
        print(_row(verdict), flush=True)
    print(f"\n{len(MUTATIONS)} mutations, {surprises} surprises")
    return 1 if surprises else 0


def _row(verdict: Verdict) -> str:
    mutation = verdict.mutation
    statement, broken = (f"`{mutation.where}`", mutation.name) if mutation else ("all", "is as it is")
    found = verdict.caught_by or "nothing"
    if mutation and mutation.redundant:
        found += f": {mutation.redundant}"
    return f"| {statement} | {broken} | {found}{'' if verdict.expected else ' **← surprise**'} |"


if __name__ == "__main__":
    sys.exit(main())
