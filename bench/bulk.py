"""How fast is a file of orders imported?

Load: `orders import` of a file with NDJSON lines. Bound: psql's copy command with the same rows into the same
table, which has its indexes and constraints, in turns with ours.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

from bench.measurement import Measurement, in_turns
from bench.stage import Stage


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the one measurement."""
    count = 1_000_000 if full else 200_000
    lines, rows = stage.folder / "orders.ndjson", stage.folder / "orders.copy"
    with lines.open("w") as ndjson, rows.open("w") as copy:
        for _ in range(count):
            user_id, *item_ids = (str(uuid4()) for _ in range(4))
            order = {"user_id": user_id, "item_ids": item_ids, "total_amount": 150.75}
            ndjson.write(json.dumps(order) + "\n")
            copy.write(f"{uuid4()}\t{user_id}\t{{{','.join(item_ids)}}}\t150.75\n")
    ours, floor = in_turns(
        lambda: count / _seconds(stage, lambda: _import(stage, str(lines))),
        lambda: (
            count
            / _seconds(
                stage,
                lambda: stage.psql(
                    f"\\copy orders (order_id, user_id, item_ids, total_amount) FROM '{rows}'"
                ),
            )
        ),
    )
    yield Measurement("bulk", f"import of {count:,} lines", "orders/s", ours, "\\copy", floor, 0.7)


def _seconds(stage: Stage, do: Callable[[], object]) -> float:
    stage.fill(0)
    began_at = time.monotonic()
    do()
    return time.monotonic() - began_at


def _import(stage: Stage, path: str) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from schema.cli.main import main; sys.exit(main())",
            "import",
            path,
            "--again",
        ],
        check=True,
        capture_output=True,
        env=stage.environment(),
    )
