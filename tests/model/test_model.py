from collections.abc import Iterator

import pytest

from tests.model.database import RealQueue, real_queue
from tests.model.mutations import MUTATIONS, Mutation
from tests.model.run import run


@pytest.fixture
def real(server_url: str, template: str) -> Iterator[RealQueue]:
    with real_queue(server_url, template) as real:
        yield real


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: f"{each.where} {each.name}")
def test_every_mutation_finds_its_text_in_the_statement_once(mutation: Mutation) -> None:
    sound = getattr(mutation.module, mutation.statement)

    with mutation.applied():
        assert getattr(mutation.module, mutation.statement).split() != sound.split()

    assert getattr(mutation.module, mutation.statement) == sound


@pytest.mark.proof
@pytest.mark.direct  # The sessions' locks and open transactions are what this is about.
def test_every_call_does_what_the_model_says(real: RealQueue) -> None:
    run(real, examples=100, steps=30)


@pytest.mark.slow
@pytest.mark.direct
@pytest.mark.timeout(2400)  # beside other tests, on two cores
def test_every_call_does_what_the_model_says_in_longer_lives_too(real: RealQueue) -> None:
    run(real, examples=500, steps=60)
