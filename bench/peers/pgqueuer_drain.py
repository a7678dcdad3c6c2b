"""Put jobs into the line, or work them off: pgqueuer_drain.py URL BATCH COUNT fill|drain.

When the line is empty, prints the times of the handler's first call and of the end, in seconds since 1970.
"""

import json
import sys
import time

import asyncpg
import uvloop
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.core.qm import QueueManager
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode
from sample import order


async def main(url: str, batch: int, count: int, what: str) -> None:
    """Do it."""
    async with asyncpg.create_pool(url, min_size=2, max_size=10) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        if what == "fill":
            await fill(queries, count)
        else:
            await drain(queries, batch)


async def fill(queries: Queries, count: int) -> None:
    """Put so many jobs into the line."""
    await queries.install()
    for _ in range(count // 1000):
        payloads = [json.dumps(order()).encode() for _ in range(1000)]
        await queries.enqueue(["order"] * 1000, payloads, [0] * 1000)


async def drain(queries: Queries, batch: int) -> None:
    """Work the line off."""
    manager = QueueManager(queries)
    times: list[float] = []

    @manager.entrypoint("order")
    async def work(_job: Job) -> None:
        times.append(time.time())

    await manager.run(batch_size=batch, mode=QueueExecutionMode.drain)
    print(json.dumps({"first": times[0], "last": time.time(), "count": len(times)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
