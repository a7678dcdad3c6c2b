"""Does anything grow with the number of orders that went through?

Load: orders go in by batches of 1,000 through one API process and are worked off by one worker with 100
slots, as fast as both can. Bound: the resident memory of each during the last tenth beside that during the
first, and in megabytes.
"""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

from bench.measurement import Measurement
from bench.stage import Stage

ORDERS = 1_000_000
BATCH = 1000
WORKER_MB = 90.0
API_MB = 110.0
GROWTH = 1.05


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield growth and size of both processes."""
    batches = (ORDERS if full else ORDERS // 3) // BATCH
    stage.fill(0)
    sizes: dict[str, list[float]] = {"worker": [], "API": []}
    with stage.api("orders_api") as api, stage.workers(1, handler="nothing", slots=100) as (worker,):
        for _ in range(batches):
            _send_batch(api.url)
            sizes["worker"].append(_resident_mb(worker.pid))
            sizes["API"].append(_resident_mb(api.pid))
            while stage.left() > 20 * BATCH:
                time.sleep(0.05)
        stage.wait_for_the_last()
    tenth = batches // 10
    for name, limit in (("worker", WORKER_MB), ("API", API_MB)):
        first, last = (statistics.median(part) for part in (sizes[name][:tenth], sizes[name][-tenth:]))
        case = f"{name}, last tenth of {batches * BATCH:,} orders"
        yield Measurement("memory", case, "MB", [last], "first tenth", [first], GROWTH, less_is_better=True)
        yield Measurement(
            "memory", f"{name}, most", "MB", [max(sizes[name])], "wanted", [limit], 1, less_is_better=True
        )


def _send_batch(url: str) -> None:
    orders = [
        {"user_id": uuid4().hex, "item_ids": [uuid4().hex for _ in range(3)], "total_amount": 150.75}
        for _ in range(BATCH)
    ]
    body = json.dumps({"orders": orders}).encode()
    request = Request(f"{url}/orders/batch", body, {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - an address of the stage's
        answer.read()


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000
