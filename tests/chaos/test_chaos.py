"""`make chaos`, as it is typed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.broken import DEFECTS
from tests.conftest import ROOT

PROMISES = {
    "fence": "exactly once",
    "rescue": "rescue",
    "order": "first come, first served",
    "idempotency": "idempotent",
}
"""The promise that each seeded defect breaks."""


def chaos(**environment: str) -> "subprocess.CompletedProcess[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos"],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            # Killed, it would leave the server and the workers behind.
            process.terminate()
            process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def report_of_sound_run(**environment: str) -> Any:
    run = chaos(**environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def report_of_broken_run(**environment: str) -> Any:
    run = chaos(**environment)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    report = json.loads(run.stdout)
    shutil.rmtree(Path(report["logs"]).parent)
    return report


def witnesses(report: Any, promise: str) -> set[str]:
    breaches = (each for each in report["breaches"] if each["promise"] == promise)
    return {each["order_id"] for each in breaches} - {"None"}


@pytest.mark.slow
@pytest.mark.direct  # It has a server of its own.
@pytest.mark.parametrize("defect", DEFECTS)
def test_judge_finds_a_seeded_defect_and_names_promise_and_order(defect: str) -> None:
    # Beside other tests it may be that the faults of one run hit nothing that the defect concerns.
    reports = [report_of_broken_run(BREAK=defect, DURATION="25", SEED="1")]
    while not witnesses(reports[-1], PROMISES[defect]) and len(reports) < 3:
        reports.append(report_of_broken_run(BREAK=defect, DURATION="25", SEED=str(len(reports) + 1)))

    assert witnesses(reports[-1], PROMISES[defect]), json.dumps(reports)


@pytest.mark.slow
@pytest.mark.direct
def test_orders_of_killed_worker_are_claimable_again_within_five_seconds() -> None:
    runs = (report_of_sound_run(FAULTS="kill-worker", DURATION="30", SEED=seed) for seed in "123")

    # Beside other tests it may be that no worker has an order in hand when it is killed.
    rescue = next(run["rescue_after_kill"] for run in runs if run["rescue_after_kill"]["orders"])

    assert rescue["max"] <= 5


@pytest.mark.slow
@pytest.mark.direct
@pytest.mark.needs("pgbouncer")
def test_promises_are_kept_behind_a_pooler() -> None:
    assert report_of_sound_run(POOLER="pgbouncer", DURATION="30", SEED="1")["pooler"] == "pgbouncer"


def test_faults_are_refused_beside_a_defect_which_has_its_own() -> None:
    run = chaos(BREAK="fence", FAULTS="kill-worker")

    assert run.returncode == 2
    assert run.stderr.startswith("FAULTS is ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DURATION", "soon"),
        ("DURATION", "0"),
        ("SEED", "-1"),
        ("BREAK", "everything"),
        ("FAULTS", "kill-worker,flood"),
        ("POOLER", "pgpool"),
    ],
)
def test_bad_setting_is_named(name: str, value: str) -> None:
    run = chaos(**{name: value})

    assert run.returncode == 2
    assert run.stderr.startswith(f"{name} is ")
    assert run.stdout == ""
