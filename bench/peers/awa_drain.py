"""Put jobs into the line, or work them off: awa_drain.py URL COUNT fill|drain.

When the line is empty, prints the times of the handler's first call and of the end, in seconds since 1970.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import awa
import uvloop
from sample import order

PARTITIONS = 4
AT_ONCE = 1024
"""In each partition; as many are claimed at a time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is about; awa reads it from a class of the program's own."""

    user_id: str
    item_ids: list[str]
    total_amount: float


async def main(url: str, count: int, what: str) -> None:
    """Do it."""
    queue = awa.PartitionedQueue("orders", PARTITIONS)
    async with awa.AsyncClient(url, max_connections=20) as client:
        if what == "fill":
            await fill(client, queue, count)
        else:
            await drain(client, queue, count)


async def fill(client: awa.AsyncClient, queue: awa.PartitionedQueue, count: int) -> None:
    """Put so many jobs into the line, by turns into each partition."""
    await client.migrate()
    await client.install_queue_storage()
    turns = [queue.route_by_index(number) for number in range(1000)]
    for _ in range(count // 1000):
        await client.enqueue_many_copy([Order(**order()) for _ in range(1000)], opts=turns)


async def drain(client: awa.AsyncClient, queue: awa.PartitionedQueue, count: int) -> None:
    """Work so many off; the shutdown waits for what is still to be written."""
    times: list[float] = []
    last = asyncio.Event()

    @client.task(Order, queue=queue.physical_queues[0])
    async def work(_job: awa.Job) -> None:
        times.append(time.time())
        if len(times) == count:
            last.set()

    await client.start(queue.queue_configs(AT_ONCE, claim_batch_size=AT_ONCE))
    await last.wait()
    await client.shutdown()
    print(json.dumps({"first": times[0], "last": time.time(), "count": len(times)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
