import pytest

from tests.protocol.configurations import CONFIGURATIONS, Configuration
from tests.protocol.spin import TOOLS, check

pytestmark = [pytest.mark.slow, pytest.mark.needs(*TOOLS)]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda each: each.name)
def test_protocol_holds_and_breaks_without_a_fence(configuration: Configuration) -> None:
    verdict = check(configuration)

    assert verdict.idle == ()
    assert verdict.promise == configuration.promise, "\n".join(verdict.story)
