"""A real orders-api whose role has what `orders grants` gives, and nothing else."""

from collections.abc import Callable
from typing import Any

from schema.runtime.connection import Connection
from tests.api.conftest import ORDER, StartApi
from tests.roles import Guarded

KEY = {"Idempotency-Key": "one"}


def test_api_of_its_own_role_does_all_its_work(
    start_api: StartApi, guarded: Guarded, wait_until: Callable[..., Any]
) -> None:
    guarded.grant("api")
    api = start_api(guarded.url_of("api"))
    batch = {"orders": [ORDER, ORDER]}

    placed = [api.post(), api.call("POST", "/orders/batch", batch)]
    placed += [api.call("POST", "/orders", ORDER, KEY) for _ in range(2)]
    placed += [api.call("POST", "/orders/batch", batch, {"Idempotency-Key": "many"}) for _ in range(2)]

    assert {answer.status for answer in placed} == {201}
    assert placed[2].json == placed[3].json
    assert placed[4].json == placed[5].json
    found = [placed[0].headers["Location"], "/orders/metrics", "/metrics", "/readyz", "/healthz"]
    assert {api.call("GET", path).status for path in found} == {200}
    assert api.call("GET", "/metrics").json["total_orders"] == 6
    with Connection.open(guarded.url, name="test") as owner:

        def folded() -> bool:
            api.post()
            return owner.one("SELECT pending > 0 FROM tally") == (True,)

        wait_until(folded)
    assert api.stop() == 0
    assert [line for line in api.lines if " INFO " not in line] == []


def test_api_whose_role_lacks_the_grants_says_what_prints_them_and_does_not_start(
    start_api: StartApi, guarded: Guarded
) -> None:
    guarded.let_in("api")

    api = start_api(guarded.url_of("api"), ready=False)

    assert api.wait() == 1
    (line,) = api.lines
    assert "permission denied" in line
    assert "orders grants" in line
