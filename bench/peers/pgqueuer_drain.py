"""Enqueue COUNT jobs, then drain them with a handler that does nothing: pgqueuer_drain.py URL COUNT BATCH.

Prints the time of the first and of the last call of the handler, in seconds since 1970.
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


async def main(url: str, count: int, batch: int) -> None:
    """Do it."""
    async with asyncpg.create_pool(url, min_size=2, max_size=10) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        for _ in range(count // 1000):
            payloads = [json.dumps(order()).encode() for _ in range(1000)]
            await queries.enqueue(["order"] * 1000, payloads, [0] * 1000)
        manager = QueueManager(queries)
        times: list[float] = []

        @manager.entrypoint("order")
        async def work(_job: Job) -> None:
            times.append(time.time())

        await manager.run(batch_size=batch, mode=QueueExecutionMode.drain)
        print(json.dumps({"first": times[0], "last": time.time(), "count": len(times)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
