"""`orders pause`, `resume`, `verify-fcfs` and `recount`: the queue as a whole."""

from dataclasses import asdict

import click

from schema.cli import session
from schema.cli.terminal import Answer, answering
from schema.queue import pause as switch
from schema.queue import tally, wake
from schema.reports import audit


@click.command()
@answering
def pause() -> Answer:
    """Stop all workers from claiming orders.

    What is under way is finished.
    """
    with session.connect() as connection:
        switch.pause(connection)
    line = "paused: workers finish what they have and claim nothing new until `orders resume`"
    return Answer([line], {"paused": True})


@click.command()
@answering
def resume() -> Answer:
    """Let the workers claim orders again."""
    with session.connect() as connection:
        switch.resume(connection)
        wake.notify(connection)
    return Answer(["resumed"], {"paused": False})


@click.command("verify-fcfs")
@answering
def verify_fcfs() -> Answer:
    """Check that orders were served in turn, and once.

    Reads what the database recorded about every claim, and names the orders that it finds: then the exit
    status is 1.
    """
    with session.connect() as connection:
        connection.reply_seconds = audit.REPLY_SECONDS
        verdict = audit.check(connection)
    inversions = [
        {"passed": each.passed._asdict(), "passer": each.passer._asdict()} for each in verdict.inversions
    ]
    found = {"clean": verdict.is_clean, **asdict(verdict), "inversions": inversions}
    return Answer(verdict.lines(), found, status=0 if verdict.is_clean else 1)


@click.command()
@answering
def recount() -> Answer:
    """Make the tally of the metrics anew.

    Needed only after orders were written with the triggers off. Nobody can write orders meanwhile.
    """
    with session.connect() as connection:
        connection.reply_seconds = tally.RECOUNT_SECONDS
        tally.recount(connection)
        counts = tally.read(connection).counts
    return Answer(["the tally is what the orders' rows say"], {"counts": counts})
