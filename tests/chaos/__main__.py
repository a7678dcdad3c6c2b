"""`make chaos`: everything real, under faults, and a judge at the end.

Exits 0 if every promise was kept, 1 if one was broken, 2 for a wrong setting.
"""

import signal
import sys
from types import FrameType

from schema.errors import SettingError
from tests.chaos import report
from tests.chaos.run import run
from tests.chaos.settings import ChaosSettings

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run, judge and report."""
    for number in STOPS:
        signal.signal(number, _stop)
    try:
        settings = ChaosSettings.from_environment()
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        document = run(settings)
    except KeyboardInterrupt:
        return 130
    text = report.as_text(document)
    if settings.report is not None:
        settings.report.write_text(text + "\n")
    print(text)
    return 1 if document["breach_count"] else 0


def _stop(_: int, __: FrameType | None) -> None:
    # Make and a terminal both signal the group: a second one must not stop the tidying up.
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
