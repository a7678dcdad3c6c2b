"""A body that is no order is answered with a problem; `BAD` has all that a body may not be."""

from collections.abc import Callable

from falcon.testing import TestClient

from tests.api.conftest import Submitted
from tests.intake.test_parse import BAD


def test_bad_body_is_answered_400_as_a_problem_and_nothing_is_stored(
    client: TestClient, stored: Callable[[], int], submitted: Submitted
) -> None:
    for case, (sent, named) in BAD.items():
        answer = client.simulate_post("/orders", body=sent, headers={"Content-Type": "application/json"})

        assert answer.status_code == 400, case
        assert answer.headers["content-type"] == "application/problem+json", case
        assert answer.json.keys() >= {"type", "title", "status", "detail"}, case
        assert answer.json["status"] == 400, case
        assert named in answer.json["detail"], case
        assert "expected" in answer.json["detail"], case

    assert stored() == 0
    assert submitted.times == 0


def test_problem_lists_each_wrong_field_beside_the_detail(client: TestClient) -> None:
    answer = client.simulate_post("/orders", json={"user_id": 7, "item_ids": []})

    assert answer.json["type"] == "/problems/invalid-order"
    assert [error["field"] for error in answer.json["errors"]] == ["user_id", "item_ids", "total_amount"]
