"""Check the protocol's models with Spin: `python -m tests.protocol [-v]`.

Prints what holds, and what breaks without each fence; `-v` adds how, in words. Exits 1 on any surprise.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.programs import missing
from tests.protocol.configurations import CONFIGURATIONS, Configuration
from tests.protocol.spin import TOOLS, SpinError, Verdict, check

AT_ONCE = 2
STORY_LINES = 20


def main(arguments: list[str]) -> int:
    """Check every configuration; return the exit status."""
    if packages := missing(*TOOLS):
        print(f"Spin and a C compiler are needed: apt-get install {packages}", file=sys.stderr)
        return 1
    print(_row("configuration", "checked", "states", "expected", "found"))
    surprises = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for configuration, verdict in zip(CONFIGURATIONS, pool.map(check, CONFIGURATIONS), strict=True):
                surprises += not verdict.fits(configuration)
                _report(configuration, verdict, verbose="-v" in arguments)
        except SpinError as error:
            print(error, file=sys.stderr)
            return 1
    print(f"{len(CONFIGURATIONS)} configurations, {surprises} surprises")
    return 1 if surprises else 0


def _report(configuration: Configuration, verdict: Verdict, *, verbose: bool) -> None:
    checked = "always" if configuration.always else "safety"
    expected, found = (_words(promise) for promise in (configuration.promise, verdict.promise))
    surprise = "" if verdict.fits(configuration) else "  <- surprise"
    print(_row(configuration.name, checked, f"{verdict.states:,}", expected, found) + surprise, flush=True)
    if configuration.reason:
        print(f"    redundant: {configuration.reason}")
    for step in verdict.idle:
        print(f"    never taken: {step}")
    if verbose:
        for line in verdict.story[-STORY_LINES:]:
            print(f"    {line}")


def _words(promise: str | None) -> str:
    return "holds" if promise is None else f'breaks "{promise}"'


def _row(*cells: str) -> str:
    name, checked, states, expected, found = cells
    return f"{name:36}{checked:9}{states:>11}  {expected:39}{found}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
