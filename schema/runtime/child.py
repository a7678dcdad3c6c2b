"""Run a program under a supervisor: `python -m schema.runtime.child MODULE ARGUMENTS`.

The program stops when the supervisor is gone, also when that was killed: standard input is a pipe from it.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module as `python -m MODULE ARGUMENTS` would."""
    threading.Thread(target=_stop_with_the_supervisor, name="orders-supervisor", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _stop_with_the_supervisor() -> None:
    # Not sys.stdin, whose lock a thread would hold when the interpreter ends.
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
