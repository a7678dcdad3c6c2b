"""Which request gets a thread, and when: lanes of threads, and a bound for how many wait and how long."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import waitress.task  # type: ignore[import-untyped]  # waitress has no type hints

WAIT_SECONDS = 5.0
"""How long a request waits for a thread at most. A request of the API keeps one for five seconds at most."""

MAX_WAITING = 512
"""How many requests wait for a thread of one lane at most."""


class Admission:
    """Gives each request to the threads of its lane, in place of waitress's one queue.

    `lanes` has the number of threads of each. `lane_of` is called with a request's path and the bytes of its
    body, and returns its lane, or None for a request that waits for nothing: the serving thread answers it.
    """

    def __init__(self, lanes: Mapping[str, int], lane_of: Callable[[str, int], str | None]) -> None:
        self._lane_of = lane_of
        self._lanes = {name: waitress.task.ThreadedTaskDispatcher() for name in lanes}
        for name, lane in self._lanes.items():
            lane.set_thread_count(lanes[name])
        self._at_once: deque[Any] = deque()
        self._refused: deque[Any] = deque()

    def add_task(self, channel: Any) -> None:
        """Let a channel's first request wait for its turn. Any thread may call this."""
        channel.waits_since = time.monotonic()
        lane = self._lane(channel.requests[0])
        if lane is None:
            self._at_once.append(channel)
        elif len(lane.queue) >= MAX_WAITING:
            self._refused.append(channel)
        else:
            lane.add_task(channel)

    def _lane(self, request: Any) -> Any:
        if request.error:  # what it asks for may be unknown
            return None
        name = self._lane_of(request.path, int(request.headers.get("CONTENT_LENGTH", 0)))
        return None if name is None else self._lanes[name]

    def take_at_once(self) -> list[Any]:
        """Take the channels whose requests wait for nothing."""
        return _take_all(self._at_once)

    def take_refused(self) -> list[Any]:
        """Take the channels whose requests are too many, or have waited too long."""
        overdue = time.monotonic() - WAIT_SECONDS
        for lane in self._lanes.values():
            if not lane.queue:
                continue
            with lane.lock:
                while lane.queue and lane.queue[0].waits_since < overdue:
                    self._refused.append(lane.queue.popleft())
        return _take_all(self._refused)

    def shutdown(self, *, seconds: float) -> None:
        """End the threads; return after so many seconds at most."""
        give_up_at = time.monotonic() + seconds
        for lane in self._lanes.values():
            lane.set_thread_count(0)
        for lane in self._lanes.values():
            lane.shutdown(timeout=max(give_up_at - time.monotonic(), 0.0))


def _take_all(channels: deque[Any]) -> list[Any]:
    return [channels.popleft() for _ in range(len(channels))]
