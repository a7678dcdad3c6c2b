import importlib

import pytest

from tests.chaos.broken import DEFECTS


@pytest.mark.parametrize("name", DEFECTS)
def test_what_a_defect_changes_is_still_there_to_be_changed(name: str) -> None:
    for edit in DEFECTS[name].edits:
        assert edit.old in getattr(importlib.import_module(edit.module), edit.constant)
