"""The defects that can be seeded in the product, to see that the judge notices them."""

import importlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """A statement of `schema`, and what is replaced in it."""

    module: str
    constant: str
    old: str
    new: str

    def make(self) -> None:
        """Change the statement in this process; fail if it has no such text any more."""
        module = importlib.import_module(self.module)
        statement = getattr(module, self.constant)
        assert self.old in statement, f"{self.module}.{self.constant} has changed: {self.old!r} is not in it"
        setattr(module, self.constant, statement.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Defect:
    """What is broken, and the kinds of faults that bring it to light."""

    edits: tuple[Edit, ...]
    faults: tuple[str, ...]


_LIVES = "EXISTS (SELECT FROM workers WHERE worker_id = %(worker_id)s AND dead_at IS NULL)"

DEFECTS = {
    "fence": Defect(
        (
            Edit("schema.queue.completion", "_COMPLETE", "\n      AND attempt = %(attempt)s", ""),
            Edit("schema.queue.completion", "_COMPLETE", "\n      AND worker_id = %(worker_id)s", ""),
            Edit("schema.queue.completion", "_COMPLETE", "\n      AND status = 'processing'", ""),
            Edit(
                "schema.queue.exchange",
                "EXCHANGE",
                "\n      AND ((order_id, attempt) IN (SELECT order_id, attempt FROM finished)) IS TRUE",
                "",
            ),
            Edit(
                "schema.queue.exchange",
                "EXCHANGE",
                "\n      AND worker_id = %(worker_id)s\n      AND status = 'processing'\n    O",
                "\n    O",
            ),
            # Told that it is dead, a worker that wakes up drops what it holds, and is often in time.
            Edit("schema.queue.workers", "_BEAT", f"SELECT {_LIVES}", "SELECT true"),
            Edit("schema.queue.exchange", "EXCHANGE", f"{_LIVES} AS alive", "true AS alive"),
        ),
        faults=("stop-worker-beyond-lease",),
    ),
    "rescue": Defect(
        (
            Edit("schema.queue.rescue", "SWEEP", "WHERE orders.worker_id = dead.worker_id", "WHERE false"),
            Edit("schema.queue.rescue", "PATROL", "WHERE status = 'processing'", "WHERE false"),
        ),
        faults=("kill-worker",),
    ),
    "order": Defect(
        (Edit("schema.queue.exchange", "EXCHANGE", "ORDER BY seq\n", "ORDER BY seq DESC\n"),),
        faults=("stop-worker", "kill-worker", "cut-network"),
    ),
    "idempotency": Defect(
        (
            Edit(
                "schema.queue.idempotency",
                "_INSERT",
                "VALUES (%(key)s,",
                "VALUES (%(key)s || gen_random_uuid(),",
            ),
        ),
        faults=("lose-answers", "kill-api"),
    ),
}
