"""What is checked: the protocol as it is, and without one of its fences at a time."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model with its switches, and what must come of it.

    `promise` is the one that must break, None if all must hold; `always` asks for liveness too, under weak
    fairness. `reason` says why a removed fence is not missed. Only where `covered` is set must every step
    of the model be taken.
    """

    name: str
    switches: tuple[str, ...]
    promise: str | None = None
    model: str = "queue"
    always: bool = False
    covered: bool = False
    reason: str = ""


_ENDS = "every order ends"
_ATTEMPT = "only its attempt ends it"
_LOST = "is not lost"
_EFFECT = "has effect if completed"
_ONCE = "takes effect once"


def _without(fence: str, promise: str | None, *, reason: str = "") -> Configuration:
    return Configuration(
        f"without {fence.replace('_', ' ')}",
        (f"WITHOUT={fence}",),
        promise,
        always=promise == _ENDS,
        reason=reason,
    )


CONFIGURATIONS = (
    Configuration("one order, two faults", ("FAULTS=2",), covered=True),
    Configuration("one order, two faults", ("FAULTS=2",), always=True),
    Configuration("one order, three faults", ("FAULTS=3",)),
    Configuration("two orders, one fault", ("ORDERS=2", "FAULTS=1"), always=True),
    Configuration("an order that kills its worker", ("POISON=1", "FAULTS=1"), always=True),
    _without("attempt_in_fence", _ATTEMPT),
    _without("status_in_fence", _ATTEMPT),
    _without(
        "worker_id_in_fence",
        None,
        reason="the attempt grows with every claim: with the order it names one claim alone",
    ),
    _without("dead_at_in_exchange", "the dead gain no claim"),
    _without("dead_at_in_heartbeat", _LOST),
    _without("delay_in_mark_swept", _LOST),
    _without("status_in_sweep", _EFFECT),
    _without("completion_in_transaction", _EFFECT),
    _without("fence_in_complete", _ONCE),
    _without("resolving_commit", _ENDS),
    _without("idle_timeout", _ENDS),
    _without("sweep", _ENDS),
    _without("recover_claims", _ENDS),
    _without("second_look", _ENDS),
    Configuration(
        "without count at claim", ("WITHOUT=count_at_claim", "POISON=1", "FAULTS=0"), _ENDS, always=True
    ),
    Configuration("acceptance, three faults", ("FAULTS=3",), model="submission", covered=True),
    Configuration("acceptance, three faults", ("FAULTS=3",), model="submission", always=True),
    Configuration("key and order apart", ("KEY_APART",), "is placed once", model="submission"),
    Configuration("without unique key", ("WITHOUT_UNIQUE_KEY",), "is placed once", model="submission"),
    Configuration(
        "a replay answers its own order_id",
        ("OWN_ORDER_ID",),
        "is what the key stands for",
        model="submission",
    ),
)
