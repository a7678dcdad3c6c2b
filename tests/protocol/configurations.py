"""What is checked: the protocol as it is, and without one of its fences at a time."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model with its switches, and what must come of it.

    `promise` is the one that must break, None if all must hold; `always` asks for liveness too, under weak
    fairness. `reason` says why a removed fence is not missed. Only where `covered` is set must every step
    of the model be taken. `slow` ones take longer than a few seconds.
    """

    name: str
    switches: tuple[str, ...]
    promise: str | None = None
    model: str = "queue"
    always: bool = False
    covered: bool = False
    slow: bool = False
    reason: str = ""


_ENDS = "every order ends"

CONFIGURATIONS = (
    Configuration("one order, two faults", ("FAULTS=2",), covered=True),
    Configuration("one order, two faults", ("FAULTS=2",), always=True, slow=True),
    Configuration("one order, three faults", ("FAULTS=3",), slow=True),
    Configuration("two orders, one fault", ("ORDERS=2", "FAULTS=1"), always=True, slow=True),
    Configuration("an order that kills its worker", ("POISON", "FAULTS=1"), always=True),
    Configuration("acceptance, three faults", ("FAULTS=3",), model="submission", covered=True),
    Configuration("acceptance, three faults", ("FAULTS=3",), model="submission", always=True),
    Configuration(
        "no worker_id in the fence",
        ("WITHOUT_WORKER",),
        reason="the attempt grows with every claim: with the order it names one claim alone",
    ),
    Configuration("no attempt in the fence", ("WITHOUT_ATTEMPT",), "only its attempt ends it"),
    Configuration("no status in the fence", ("WITHOUT_STATUS",), "only its attempt ends it"),
    Configuration("no dead_at in the exchange", ("WITHOUT_DEAD_CHECK",), "the dead gain no claim"),
    Configuration("no dead_at in the heartbeat", ("DEATH_REVOKED",), "is not lost"),
    Configuration("no status in the sweep", ("SWEEP_WITHOUT_STATUS",), "has effect if completed"),
    Configuration("swept before the last late claim", ("SWEPT_AT_ONCE",), "is not lost"),
    Configuration("completion outside the transaction", ("WITHOUT_TRANSACTION",), "has effect if completed"),
    Configuration("a lost COMMIT believed", ("COMMIT_BELIEVED",), _ENDS, always=True),
    Configuration("no end to an idle transaction", ("WITHOUT_IDLE_TIMEOUT",), _ENDS, always=True),
    Configuration("no rescue", ("WITHOUT_RESCUE",), _ENDS, always=True),
    Configuration("no look for strays", ("WITHOUT_STRAYS",), _ENDS, always=True),
    Configuration("no second look for strays", ("WITHOUT_SECOND_LOOK",), _ENDS, always=True),
    Configuration("attempts counted at their end", ("COUNTED_AT_END", "POISON", "FAULTS=0"), _ENDS, always=True),
    Configuration("key and order apart", ("KEY_APART",), "is placed once", model="submission"),
    Configuration("no unique key", ("WITHOUT_UNIQUE_KEY",), "is placed once", model="submission"),
)
