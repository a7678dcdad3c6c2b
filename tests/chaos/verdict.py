"""Everything that a run is judged by, in one place."""

from dataclasses import dataclass

from schema.runtime.connection import Connection
from tests.chaos import progress, rescues
from tests.chaos.evidence import Breach, Evidence
from tests.chaos.judge import EXACTLY_ONCE, judge
from tests.chaos.line import Line, judge_line
from tests.chaos.progress import Pauses
from tests.chaos.rescues import Rescues


@dataclass(frozen=True, slots=True)
class Findings:
    """What came out."""

    breaches: list[Breach]
    rescues: Rescues
    pauses: Pauses
    line: Line


def judge_all(connection: Connection, evidence: Evidence) -> Findings:
    """Read the database of a run that is over."""
    rescued = rescues.measure(connection, evidence)
    pauses = progress.measure(connection, evidence)
    in_line = judge_line(connection, evidence)
    breaches = [
        *judge(connection, evidence),
        *(Breach(EXACTLY_ONCE, None, words) for words in evidence.differences),
        *in_line.breaches(),
        *rescues.breaches(rescued, evidence),
        *progress.breaches(pauses),
        *(Breach("stays up", None, str(each)) for each in evidence.exits if not each.expected),
        *(Breach("the harness itself", None, words) for words in evidence.failures),
    ]
    return Findings(breaches, rescued, pauses, in_line)
