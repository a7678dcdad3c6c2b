"""Start a program of the product with a defect seeded, or one whose clock is wrong.

BREAK=fence python -m tests.chaos.launch orders_worker
"""

import os
import runpy
import sys
import threading
import time
from typing import SupportsIndex

from tests.chaos.broken import DEFECTS


def main() -> None:
    """Change what is to be changed, and run the module that the command line names."""
    if defect := os.environ.get("BREAK"):
        for edit in DEFECTS[defect].edits:
            edit.make()
    if os.environ.get("FAKETIME"):
        # libfaketime 0.9.10 fails in clock_nanosleep when it leaves the monotonic clock alone.
        time.sleep = _sleep
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _sleep(seconds: float | SupportsIndex, /) -> None:
    threading.Event().wait(float(seconds))


if __name__ == "__main__":
    main()
