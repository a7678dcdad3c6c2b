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
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.direct  # It has a server of its own.
@pytest.mark.parametrize("defect", DEFECTS)
def test_judge_finds_a_seeded_defect_and_names_promise_and_order(defect: str) -> None:
    run = chaos(BREAK=defect, DURATION="25", SEED="1")

    assert run.returncode == 1, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    shutil.rmtree(Path(report["logs"]).parent)
    witnesses = {each["order_id"] for each in report["breaches"] if each["promise"] == PROMISES[defect]}
    assert witnesses - {"None"}, report


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
