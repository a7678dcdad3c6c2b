"""The report: what was done to the queue, and what came of it, as one JSON document."""

import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import psycopg

from tests.chaos.clients import Record
from tests.chaos.evidence import Breach, Evidence, Kind
from tests.chaos.rescues import Cause, Rescue
from tests.chaos.settings import ChaosSettings
from tests.chaos.verdict import Findings

SHOWN = 20
"""Breaches of one promise that are listed at most; all are counted."""


def report(
    settings: ChaosSettings, *, evidence: Evidence, records: list[Record], findings: Findings
) -> dict[str, Any]:
    """Put what was done and what came of it into one document."""
    return {
        "seed": settings.seed,
        "duration_seconds": settings.duration_seconds,
        "broken_on_purpose": settings.defect or None,
        "pooler": settings.pooler or None,
        "faults": dict(sorted(Counter(each.kind for each in evidence.happenings).items())),
        **_kept(evidence, findings),
        **_times(evidence, findings),
        **_clients(records),
        "exits_by_handler": sum(each.expected and each.status > 0 for each in evidence.exits),
        "unexpected_exits": [str(each) for each in evidence.exits if not each.expected],
        "breach_count": len(findings.breaches),
        "breaches": [
            {"promise": each.promise, "order_id": str(each.order_id), "words": each.words}
            for each in _listed(findings.breaches)
        ],
    }


def _listed(breaches: Sequence[Breach]) -> Iterator[Breach]:
    """Leave out those beyond the first `SHOWN` of their promise: many of one may not hide the others."""
    listed: Counter[str] = Counter()
    for breach in breaches:
        listed[breach.promise] += 1
        if listed[breach.promise] <= SHOWN:
            yield breach


def _kept(evidence: Evidence, findings: Findings) -> dict[str, Any]:
    """Return the counts that must be 0, and how many orders they are about."""
    kinds = Counter(each.kind for each in findings.breaches)
    line = findings.line
    return {
        "accepted": len({order_id for each in evidence.submissions for order_id in each.answered}),
        "lost": kinds[Kind.LOST],
        "worked_twice_with_effect": kinds[Kind.EFFECT_REPEATED],
        "effect_missing": kinds[Kind.EFFECT_MISSING],
        "claims": line.verdict.claims,
        "fcfs_inversions": len(line.inversions),
        "fcfs_passed_while_locked": line.locked,
        "fcfs_passed_while_committed_late": line.late,
        "fcfs_passed_while_to_run_alone": line.verdict.passed_alone,
        "double_starts": len(line.verdict.double_starts),
    }


def _times(evidence: Evidence, findings: Findings) -> dict[str, Any]:
    rescues, pauses = findings.rescues, findings.pauses
    return {
        "rescue_after_kill": _rescue(rescues.timed, Cause.KILL, disturbed=False),
        "rescue_after_kill_with_another_fault": _rescue(rescues.timed, Cause.KILL, disturbed=True),
        "rescue_after_stall": _rescue(rescues.timed, Cause.STALL, disturbed=False),
        "rescue_after_stall_with_another_fault": _rescue(rescues.timed, Cause.STALL, disturbed=True),
        "rescues_from_workers_cut_off": len(rescues.cut_off),
        "rescues_from_living_workers": len(rescues.living),
        "rescues_while_locked": len(rescues.locked),
        "longest_seconds_without_progress": {
            kind: round(seconds, 1) for kind, seconds in sorted(pauses.around.items())
        },
        "locks_by_themselves": len(pauses.while_locked),
        "longest_seconds_without_progress_beside_a_lock": round(max(pauses.while_locked, default=0.0), 1),
        "server_away_seconds": round(sum(ended - began for began, ended in evidence.away), 1),
    }


def _clients(records: list[Record]) -> dict[str, Any]:
    latencies = sorted(latency for record in records for latency in record.latencies)
    errors: Counter[str] = Counter()
    for record in records:
        errors.update(record.errors)
    return {
        "replays": sum(record.replays for record in records),
        "refusals_of_used_keys": sum(record.refusals for record in records),
        "client_errors": dict(errors.most_common()),
        "seconds_until_201": {name: percentile(latencies, share) for name, share in SHARES.items()},
    }


SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest of the ascending values that at least `share` of them do not exceed."""
    if not ordered:
        return None
    rank = -(-len(ordered) * round(share * 100) // 100)
    return round(ordered[max(rank, 1) - 1], 3)


def _rescue(rescues: list[Rescue], cause: Cause, *, disturbed: bool) -> dict[str, Any]:
    seconds = sorted(each.seconds for each in rescues if each.cause == cause and each.disturbed == disturbed)
    return {"orders": len(seconds), **{name: percentile(seconds, share) for name, share in SHARES.items()}}


def versions(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return what everything ran on."""
    return {
        "orders-queue": metadata.version("orders-queue"),
        "postgresql": connection.info.parameter_status("server_version") or "",
        "psycopg": psycopg.__version__,
        "python": platform.python_version(),
    }


def as_text(document: dict[str, Any]) -> str:
    """Return it as it is printed."""
    return json.dumps(document, indent=2)
