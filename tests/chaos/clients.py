"""The clients: they post all the time, each order under a key of its own, and do not give up on one."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

TIMEOUT_SECONDS = 8.0
ERROR_PAUSE_SECONDS = 0.2
RESEND_SHARE = 0.03
MISUSE_SHARE = 0.01

BEHAVIOURS = {
    # How the handler behaves, for how many seconds, how often, and whether it can do without the ledger.
    "plain": ((0.0, 0.0), 600, True),
    "sleep-before": ((0.1, 2.0), 200, True),
    "sleep-after": ((0.05, 0.5), 80, False),
    "raise-once": ((0.0, 0.0), 60, True),
    "raise-twice": ((0.0, 0.0), 20, True),
    "reject": ((0.0, 0.0), 30, True),
    "hang": ((6.0, 9.0), 3, False),
    "exit": ((0.0, 0.0), 1, True),
}


@dataclass(slots=True)
class Submission:
    """What one client wants to be placed once, under `key`, and every order id it was answered.

    `misused` are the ids answered when the key came with another order, which should be refused.
    """

    key: str
    item_ids: list[str]
    amount: Decimal
    answered: list[UUID] = field(default_factory=list)
    misused: list[UUID] = field(default_factory=list)

    @property
    def writes(self) -> bool:
        """Whether the handler writes its effect in a transaction."""
        return self.item_ids[2] == "ledger"

    @property
    def end(self) -> str:
        """The state in which the order must end."""
        return "failed" if self.item_ids[0] == "reject" else "completed"


@dataclass(slots=True)
class Record:
    """What one client has seen."""

    submissions: list[Submission] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    replays: int = 0
    refusals: int = 0


class Client(threading.Thread):
    """Posts about `rate` orders a second until `stop`, then until its last one is placed or `give_up`."""

    def __init__(self, ports: list[int], *, rate: float, dice: random.Random, crowd: "Crowd") -> None:
        super().__init__(name="client", daemon=True)
        self.record = Record()
        self._ports = ports
        self._rate = rate
        self._dice = dice
        self._crowd = crowd

    def run(self) -> None:
        """Post."""
        while not self._crowd.stop.wait(self._dice.expovariate(self._rate)):
            self._place(self._imagine())
            if self._dice.random() < RESEND_SHARE:
                self._post(self._dice.choice(self.record.submissions))
            if self._dice.random() < MISUSE_SHARE:
                self._misuse(self._dice.choice(self.record.submissions))

    def _imagine(self) -> Submission:
        weights = [
            weight if name != "exit" or self._crowd.deadly else 0
            for name, (_, weight, _) in BEHAVIOURS.items()
        ]
        (name,) = self._dice.choices(list(BEHAVIOURS), weights)
        (low, high), _, optional = BEHAVIOURS[name]
        effect = "none" if optional and self._dice.random() < 0.3 else "ledger"
        seconds = f"{self._dice.uniform(low, high):.2f}"
        amount = Decimal(self._dice.randrange(1, 100_000)) / 100
        return Submission(UUID(int=self._dice.getrandbits(128)).hex, [name, seconds, effect], amount)

    def _place(self, submission: Submission) -> None:
        self.record.submissions.append(submission)
        begun = time.monotonic()
        self._post(submission)
        self.record.latencies.append(time.monotonic() - begun)

    def _post(self, submission: Submission) -> None:
        """Send it again and again until it is answered with a 201."""
        for status, answer, replayed in self._answers(submission, submission.amount):
            if status == 201:
                submission.answered.append(UUID(answer["order_id"]))
                self.record.replays += replayed
                return
            self.record.errors[f"{status} {answer.get('title', '')}".strip()] += 1

    def _misuse(self, submission: Submission) -> None:
        """Send another order under the same key, until it is refused as it should be."""
        for status, answer, _ in self._answers(submission, submission.amount + 1):
            if status == 422:
                self.record.refusals += 1
                return
            if status == 201:
                submission.misused.append(UUID(answer["order_id"]))
                return
            self.record.errors[f"{status} {answer.get('title', '')}".strip()] += 1

    def _answers(self, submission: Submission, amount: Decimal) -> Iterator[tuple[int, Any, bool]]:
        body = {"user_id": submission.key, "item_ids": submission.item_ids, "total_amount": float(amount)}
        headers = {"Content-Type": "application/json", "Idempotency-Key": submission.key}
        while not self._crowd.give_up.is_set():
            try:
                yield self._send(json.dumps(body), headers)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.record.errors[type(error).__name__] += 1
            self._crowd.give_up.wait(ERROR_PAUSE_SECONDS * self._dice.uniform(0.5, 1.5))

    def _send(self, body: str, headers: dict[str, str]) -> tuple[int, Any, bool]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._dice.choice(self._ports), timeout=TIMEOUT_SECONDS
        )
        try:
            connection.request("POST", "/orders", body, headers)
            answer = connection.getresponse()
            replayed = answer.getheader("Idempotent-Replayed") == "true"
            return answer.status, json.loads(answer.read()), replayed
        finally:
            connection.close()


class Crowd:
    """All clients. If they are `deadly`, now and then an order ends the worker that takes it."""

    def __init__(
        self, ports: list[int], *, clients: int, rate: float, seed: int, deadly: bool = True
    ) -> None:
        self.deadly = deadly
        self.stop = threading.Event()
        self.give_up = threading.Event()
        self._clients = [
            Client(ports, rate=rate / clients, dice=random.Random(f"{seed} client {number}"), crowd=self)
            for number in range(clients)
        ]

    @property
    def records(self) -> list[Record]:
        """What they have seen so far."""
        return [client.record for client in self._clients]

    def start(self) -> None:
        """Begin to post."""
        for client in self._clients:
            client.start()

    def finish(self, seconds: float) -> None:
        """Begin no new order; give the open ones some time to be placed."""
        self.stop.set()
        give_up_at = time.monotonic() + seconds
        for client in self._clients:
            client.join(max(give_up_at - time.monotonic(), 0))
        self.give_up.set()
        for client in self._clients:
            client.join()
