"""What may have happened before a life begins: what takes too many steps to come about by chance often."""

from typing import Any

from schema.states import Outcome
from tests.model.calls import Call
from tests.model.database import SESSIONS
from tests.model.tables import Worker

ONE, TWO = SESSIONS


def _call(name: str, **arguments: Any) -> Call:
    return Call(name, arguments)


ARRIVALS = (
    _call("submit", at=ONE),
    _call("register", at=ONE, slots=2),
    _call("submit", at=ONE),
    _call("register", at=ONE, slots=1),
    _call("submit", at=ONE),
)
"""Before everything else: three orders and two workers."""

_CLAIM = {"worker": 0, "free": 3, "idle": True, "floor": 0, "limit": 2}

_REJECTED = (
    _call("claim_next", at=ONE, **_CLAIM),
    _call("cancel", at=ONE, order=0),
    _call(
        "end",
        at=ONE,
        holder=None,
        ended=[
            (number, Outcome.REJECTED, error, 0.0) for number, error in enumerate((None, "it broke", None))
        ],
    ),
)

_LOST_SESSION = (
    _call("pass_time", seconds=10.5),
    _call("beat", at=ONE, worker=0, held=[], oldest="now"),
    _call("hold_session", at=TWO, worker=0),
    _call("disconnect", at=TWO),
    _call("declare_dead", at=ONE, watched=float("inf"), running=float("inf")),
)

PASTS = {
    "nothing": (),
    "all orders came back from an attempt": (
        _call("claim_next", at=ONE, **_CLAIM),
        _call(
            "end", at=ONE, holder=None, ended=[(number, Outcome.RELEASED, None, 0.0) for number in (0, 1, 2)]
        ),
    ),
    "all orders failed, and again after they were redriven": (
        *_REJECTED,
        _call("redrive_failed", at=ONE, prefix=None, again=False, attempts=2),
        _call("pass_time", seconds=1.0),
        *_REJECTED,
    ),
    "an order had failed, was redriven, and was cancelled when the clock had been set back": (
        *_REJECTED,
        _call("redrive_failed", at=ONE, prefix=None, again=False, attempts=2),
        _call("pass_time", seconds=-3.0),
        _call("cancel", at=ONE, order=0),
    ),
    "a session was seen to be lost": _LOST_SESSION,
    "a session was seen to be lost two seconds ago": (*_LOST_SESSION, _call("pass_time", seconds=2.0)),
    "a worker died with all orders": (
        _call("claim_next", at=ONE, **_CLAIM),
        _call("leave", at=ONE, worker=0),
    ),
    "all orders were rescued twice in a row": (
        *(
            call
            for worker in (0, 1)
            for call in (
                _call("claim_next", at=ONE, **_CLAIM | {"worker": worker, "limit": 3}),
                _call("leave", at=ONE, worker=worker),
                _call("sweep", at=ONE),
            )
        ),
        _call("register", at=ONE, slots=2),
        _call("register", at=ONE, slots=1),
    ),
    "one was rescued twice in a row, between others that came back once": (
        _call("submit", at=ONE),
        _call("claim_next", at=ONE, **_CLAIM | {"limit": 3}),
        _call("leave", at=ONE, worker=0),
        _call("sweep", at=ONE),
        _call("claim_next", at=ONE, **_CLAIM | {"worker": 1, "free": 2}),
        _call("end", at=ONE, holder=None, ended=[(1, Outcome.RELEASED, None, 0.0)]),
        _call("leave", at=ONE, worker=1),
        _call("sweep", at=ONE),
        _call("register", at=ONE, slots=2),
        _call("register", at=ONE, slots=1),
    ),
    "two workers died long ago, and somebody has one's row locked": (
        _call("leave", at=ONE, worker=0),
        _call("leave", at=ONE, worker=1),
        _call("pass_time", seconds=20.5),
        _call("mark_swept", at=ONE),
        _call("pass_time", seconds=86_401.0),
        _call("lock", at=TWO, table=Worker, number=0),
    ),
    "a claim was committed when its worker was dead and done with": (
        _call("begin", at=TWO),
        _call("claim_next", at=TWO, **_CLAIM),
        _call("leave", at=ONE, worker=0),
        _call("pass_time", seconds=20.5),
        _call("mark_swept", at=ONE),
        _call("commit", at=TWO),
    ),
    "a death was committed late, and the worker claimed long after it": (
        _call("begin", at=TWO),
        _call("leave", at=TWO, worker=0),
        _call("pass_time", seconds=20.5),
        _call("claim_next", at=ONE, **_CLAIM),
        _call("commit", at=TWO),
    ),
}
